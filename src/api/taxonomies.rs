//! Taxonomies: domains, their codes and labels.

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
    /// Name of the domain
    #[schema(example = "damage_types")]
    pub domain: String,
    /// Number of codes
    pub codes: usize,
    /// URL path of the resource with the domain's codes
    #[schema(example = "/api/v1/taxonomies/damage_types")]
    pub href: String,
}

/// All taxonomy domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Domains {
    /// Domains, in alphabetical order
    pub domains: Vec<DomainSummary>,
}

/// Codes of a taxonomy domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Codes {
    /// Name of the domain
    pub domain: String,
    /// Codes of the domain, in display order
    pub codes: Vec<Entry>,
}

/// Taxonomy domains
///
/// Returns all taxonomy domains with the number of their codes. A domain is a list of codes for one kind of value, such
/// as `damage_types`.
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

/// Codes of a taxonomy domain
///
/// Returns the codes of a domain with their labels, in display order.
#[utoipa::path(
    get, path = "/api/v1/taxonomies/{domain}", tag = "taxonomies",
    params(("domain" = String, Path, description = "Domain name, such as `damage_types`"), super::openapi::Lang),
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
