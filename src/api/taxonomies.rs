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

/// A domain and how many codes it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DomainSummary {
    /// Its name
    #[schema(example = "damage_types")]
    pub domain: String,
    /// How many codes it has
    pub codes: usize,
    /// Where it is
    #[schema(example = "/api/v1/taxonomies/damage_types")]
    pub href: String,
}

/// All domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Domains {
    /// By name
    pub domains: Vec<DomainSummary>,
}

/// A domain's codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Codes {
    /// Its name
    pub domain: String,
    /// Its codes in their order
    pub codes: Vec<Entry>,
}

/// Domains
///
/// The lookup tables there are.
#[utoipa::path(
    get, path = "/api/v1/taxonomies", tag = "taxonomies",
    responses((status = 200, description = "all domains", body = Domains), super::openapi::Refused)
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
/// Its codes with their labels, in the order in which lists show them.
#[utoipa::path(
    get, path = "/api/v1/taxonomies/{domain}", tag = "taxonomies",
    params(("domain" = String, Path, description = "its name"), super::openapi::Lang),
    responses((status = 200, description = "its codes", body = Codes), super::openapi::Refused, super::openapi::NotThere)
)]
pub async fn domain(
    State(shared): State<Arc<Shared>>,
    Named(name): Named,
    ask: Ask,
) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[&[LANG]])?;
    let lang = Lang::of(&asked, &ask.headers);
    let Some(domain) = Domain::named(&name) else {
        return Err(Problem::unknown("no such domain: /api/v1/taxonomies names them"));
    };
    let codes = Codes { domain: name, codes: shared.words().entries(domain, lang) };
    Ok(json(&ask.headers, Some(lang), Keep::Minutes, &codes))
}
