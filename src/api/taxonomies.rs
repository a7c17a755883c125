//! The vocabulary: domains, their codes and labels.

use super::answer::{Keep, json};
use super::lang::Lang;
use super::params::{Asked, LANG};
use super::problem::Problem;
use super::words::Entry;
use super::{Ask, Named, Shared};
use crate::taxonomy::Domain;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Taxonomy domain and the number of its codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DomainSummary {
    /// Domain name
    #[schema(example = "damage_types")]
    pub domain: String,
    /// Number of codes
    pub codes: usize,
    /// Path of the domain's codes
    #[schema(example = "/api/v1/taxonomies/damage_types")]
    pub href: String,
}

/// All domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Domains {
    /// Domains, in alphabetical order
    pub domains: Vec<DomainSummary>,
}

/// A domain's codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Codes {
    /// Domain name
    pub domain: String,
    /// Codes, in display order
    pub codes: Vec<Entry>,
}

/// Domains
///
/// Returns the taxonomy domains.
#[utoipa::path(
    get, path = "/api/v1/taxonomies", tag = "taxonomies",
    responses((status = 200, description = "All domains", body = Domains), super::openapi::Refused)
)]
pub async fn domains(State(shared): State<Arc<Shared>>, ask: Ask) -> Result<Response, Problem> {
    Asked::read(ask.query(), &[])?;
    let words = shared.words();
    let domain = |domain: Domain| DomainSummary {
        domain: domain.name().to_owned(),
        codes: words.count(domain),
        href: format!("/api/v1/taxonomies/{}", domain.name()),
    };
    Ok(json(&ask.headers, None, Keep::Minutes, &Domains { domains: Domain::ALL.map(domain).into() }))
}

/// A domain
///
/// Returns the codes of a domain with their labels, in display order.
#[utoipa::path(
    get, path = "/api/v1/taxonomies/{domain}", tag = "taxonomies",
    params(("domain" = String, Path, description = "Domain name"), super::openapi::Lang),
    responses((status = 200, description = "Codes of the domain", body = Codes), super::openapi::Refused, super::openapi::NotThere)
)]
pub async fn domain(
    State(shared): State<Arc<Shared>>,
    Named(name): Named,
    ask: Ask,
) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[&[LANG]])?;
    let lang = Lang::of(&asked, &ask.headers);
    let Some(domain) = Domain::named(&name) else {
        return Err(Problem::unknown("The domain does not exist. /api/v1/taxonomies lists the domains."));
    };
    let codes = Codes { domain: name, codes: shared.words().entries(domain, lang) };
    Ok(json(&ask.headers, Some(lang), Keep::Minutes, &codes))
}
