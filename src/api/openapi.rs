//! The OpenAPI document, generated from the code, and an HTML page to browse it that loads no external resource.

use super::params::{LANG_PARAM, QueryParam};
use super::problem::Problem;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Required, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, OpenApi};

/// The OpenAPI document of all resources.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "vinops",
        description = "Read-only API of the vehicles and lots in the auctions' feeds. Coded values have a code and a \
                       label, or the raw value if there is no code. Times are RFC 3339 in UTC. The time of a sale is \
                       also given in the yard's time zone. Null means that the feed contains no readable value, unless a \
                       field describes another meaning. Errors are problem documents (RFC 9457). Every response has the \
                       header `x-request-id`: the id sent by the client if it is printable and has at most 64 characters, \
                       otherwise a generated id."
    ),
    paths(
        super::search::search_lots,
        super::facets::list_facets,
        super::lots::show_lot,
        super::lots::show_source_lot,
        super::history::show_history,
        super::history::show_source_history,
        super::history::show_lot_at,
        super::history::show_source_lot_at,
        super::vehicles::show_vehicle,
        super::taxonomies::list_domains,
        super::taxonomies::show_domain,
        super::windows::list_windows
    ),
    components(schemas(Problem))
)]
struct OpenApiDocument;

static DOCUMENT_JSON: LazyLock<String> = LazyLock::new(|| OpenApiDocument::openapi().to_json().unwrap_or_default());

/// Returns the OpenAPI document as JSON.
pub async fn openapi_json() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=300")],
        DOCUMENT_JSON.as_str(),
    )
        .into_response()
}

/// Returns the HTML page to browse the API. Its content security policy allows requests to this API only.
pub async fn browse_page() -> Response {
    const CONTENT_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                           form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=300"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    ];
    (headers, include_str!("page.html")).into_response()
}

/// The query parameter `lang`, for resources that have no other parameter.
pub struct LanguageQuery;

impl IntoParams for LanguageQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        document_params(&[LANG_PARAM])
    }
}

/// Converts query parameters to their OpenAPI form.
pub fn document_params(params: &[QueryParam]) -> Vec<Parameter> {
    params.iter().map(QueryParam::to_openapi).collect()
}

/// Error responses that every resource can return.
pub struct ErrorResponses;

impl IntoResponses for ErrorResponses {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let descriptions = [
            ("400", "A parameter is unknown or invalid. `parameter` names it"),
            ("413", "The body is longer than 1 KB"),
            ("414", "The path and the query are longer than 4 KB"),
            ("431", "The headers are longer than 16 KB"),
            ("500", "The server failed. The server's log contains the cause with `request_id`"),
            (
                "503",
                "Too many concurrent requests, a timeout, or an unreachable database. `Retry-After` is the delay before a \
                 retry, in seconds",
            ),
        ];
        descriptions.into_iter().map(|(status, what)| (status.to_owned(), problem_response(what))).collect()
    }
}

/// The response 404 Not Found.
pub struct NotFoundResponse;

impl IntoResponses for NotFoundResponse {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        BTreeMap::from([("404".to_owned(), problem_response("The resource does not exist"))])
    }
}

/// The response 410 Gone.
pub struct GoneResponse;

impl IntoResponses for GoneResponse {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        BTreeMap::from([("410".to_owned(), problem_response("The resource was removed"))])
    }
}

/// The response 409 Conflict of the paths that identify a lot by its number alone.
pub struct AmbiguousResponse;

impl IntoResponses for AmbiguousResponse {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let what = "Several sources have a lot of this number. `sources` lists them, and `/lots/{source}/{lot}` identifies one lot";
        BTreeMap::from([("409".to_owned(), problem_response(what))])
    }
}

/// The path parameters `source` and `lot`.
pub struct SourceLotParams;

impl IntoParams for SourceLotParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let source = path_parameter("source", "Source of the lot", |text| text.examples(["copart"]));
        [source].into_iter().chain(LotParams::into_params(|| None)).collect()
    }
}

/// The path parameter `lot`.
pub struct LotParams;

impl IntoParams for LotParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let number = |text: ObjectBuilder| text.pattern(Some("^0*[1-9][0-9]{0,17}$")).max_length(Some(18));
        vec![path_parameter("lot", "Lot number at the source", number)]
    }
}

fn path_parameter(name: &str, what: &str, of: impl Fn(ObjectBuilder) -> ObjectBuilder) -> Parameter {
    let text = of(ObjectBuilder::new().schema_type(Type::String));
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(what))
        .schema(Some(text))
        .build()
}

fn problem_response(what: &str) -> RefOr<utoipa::openapi::Response> {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(what).content("application/problem+json", content).build().into()
}
