//! Taxonomies: domains, their codes and labels.

use super::labels::LabelEntry;
use super::language::Language;
use super::params::{LANG_PARAM, ParsedQuery};
use super::problem::Problem;
use super::response::{CachePolicy, json_response};
use super::{ApiState, PathName, RequestQuery};
use crate::taxonomy::TaxonomyDomain;
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
pub struct DomainsResponse {
    /// Domains, in alphabetical order
    pub domains: Vec<DomainSummary>,
}

/// Codes of a taxonomy domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DomainCodesResponse {
    /// Name of the domain
    pub domain: String,
    /// Codes of the domain, in display order
    pub codes: Vec<LabelEntry>,
}

/// Taxonomy domains
///
/// Returns all taxonomy domains with the number of their codes. A domain is a list of codes for one kind of value, such
/// as `damage_types`.
#[utoipa::path(
    get, path = "/api/v1/taxonomies", tag = "taxonomies",
    responses((status = 200, description = "All domains", body = DomainsResponse), super::openapi::ErrorResponses)
)]
pub async fn list_domains(State(shared): State<Arc<ApiState>>, ask: RequestQuery) -> Result<Response, Problem> {
    ParsedQuery::parse(ask.query(), &[])?;
    let words = shared.labels();
    let domain = |domain: TaxonomyDomain| DomainSummary {
        domain: domain.name().to_owned(),
        codes: words.code_count(domain),
        href: format!("/api/v1/taxonomies/{}", domain.name()),
    };
    Ok(json_response(
        &ask.headers,
        None,
        CachePolicy::Short,
        &DomainsResponse { domains: TaxonomyDomain::ALL.map(domain).into() },
    ))
}

/// Codes of a taxonomy domain
///
/// Returns the codes of a domain with their labels, in display order.
#[utoipa::path(
    get, path = "/api/v1/taxonomies/{domain}", tag = "taxonomies",
    params(("domain" = String, Path, description = "Domain name, such as `damage_types`"), super::openapi::LanguageQuery),
    responses((status = 200, description = "Codes of the domain", body = DomainCodesResponse), super::openapi::ErrorResponses, super::openapi::NotFoundResponse)
)]
pub async fn show_domain(
    State(shared): State<Arc<ApiState>>,
    PathName(name): PathName,
    ask: RequestQuery,
) -> Result<Response, Problem> {
    let asked = ParsedQuery::parse(ask.query(), &[&[LANG_PARAM]])?;
    let lang = Language::from_request(&asked, &ask.headers);
    let Some(domain) = TaxonomyDomain::from_name(&name) else {
        return Err(Problem::not_found("The domain does not exist. /api/v1/taxonomies lists the domains."));
    };
    let codes = DomainCodesResponse { domain: name, codes: shared.labels().domain_entries(domain, lang) };
    Ok(json_response(&ask.headers, Some(lang), CachePolicy::Short, &codes))
}
