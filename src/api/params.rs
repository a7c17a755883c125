//! Query parameters as data. Request parsing and the OpenAPI document use the same list, so they cannot differ.
//!
//! An unknown parameter is an error that names the parameter. If a misspelt filter were ignored, the response would
//! contain all lots and look like a filtered result.

use super::problem::Problem;
use crate::taxonomy::{TaxonomyDomain, entries};
use chrono::{DateTime, Utc};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Required};

/// Maximum length of a text value, in characters.
const MAX_TEXT_CHARS: usize = 100;
/// Maximum number of values of one repeated parameter.
const MAX_REPEATS: usize = 50;

/// Type of a parameter's value, with its validation and its OpenAPI schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ParamType {
    /// Text of 1 to 100 characters, not blank and without NUL.
    Text,
    /// Code of a taxonomy domain.
    Code(TaxonomyDomain),
    /// One of the listed values.
    OneOf(&'static [&'static str]),
    /// Whole number between a minimum and a maximum, both included.
    Number(i64, i64),
    /// Decimal amount of money, such as `1250` or `1250.50`.
    Money,
    /// Time in RFC 3339 form.
    Instant,
    /// First 1 to 17 characters of a VIN.
    VinPrefix,
    /// Cursor that a page returned in `next`.
    Cursor,
}

/// Definition of a query parameter.
#[derive(Clone, Copy, Debug)]
pub struct QueryParam {
    /// Name in the query string.
    pub name: &'static str,
    /// Type of the value.
    pub shape: ParamType,
    /// True if the parameter may be repeated. The values are then alternatives.
    pub many: bool,
    /// True if a request without the parameter is an error.
    pub required: bool,
    /// Description in the OpenAPI document, one line.
    pub about: &'static str,
}

impl QueryParam {
    /// Returns an optional parameter that may be given once.
    pub const fn optional(name: &'static str, shape: ParamType, about: &'static str) -> QueryParam {
        QueryParam { name, shape, many: false, required: false, about }
    }

    /// Returns an optional parameter that may be repeated.
    pub const fn repeated(name: &'static str, shape: ParamType, about: &'static str) -> QueryParam {
        QueryParam { name, shape, many: true, required: false, about }
    }

    /// Returns a required parameter.
    pub const fn required(name: &'static str, shape: ParamType, about: &'static str) -> QueryParam {
        QueryParam { name, shape, many: false, required: true, about }
    }

    /// Returns the parameter in its OpenAPI form.
    pub fn to_openapi(&self) -> Parameter {
        let schema = self.shape.openapi_schema();
        let schema: RefOr<Schema> = if self.many {
            ArrayBuilder::new().items(schema).min_items(Some(1)).max_items(Some(MAX_REPEATS)).into()
        } else {
            schema
        };
        ParameterBuilder::new()
            .name(self.name)
            .parameter_in(ParameterIn::Query)
            .required(if self.required { Required::True } else { Required::False })
            .description(Some(self.about))
            .schema(Some(schema))
            .build()
    }
}

/// The parameter `lang`, accepted by every resource that returns labels.
pub const LANG_PARAM: QueryParam = QueryParam::optional(
    "lang",
    ParamType::OneOf(&["en", "ru"]),
    "Language of the labels. Default: the language of the Accept-Language header, otherwise English",
);

impl ParamType {
    fn openapi_schema(self) -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        match self {
            ParamType::Text => {
                text().min_length(Some(1)).max_length(Some(MAX_TEXT_CHARS)).pattern(Some(r"^[^\x00]*\S[^\x00]*$"))
            }
            ParamType::Code(domain) => {
                text().enum_values(Some(entries(domain).iter().map(|entry| entry.code.as_str())))
            }
            ParamType::OneOf(words) => text().enum_values(Some(words.to_vec())),
            ParamType::Number(least, most) => {
                ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least as f64)).maximum(Some(most as f64))
            }
            ParamType::Money => text().pattern(Some(r"^[0-9]{1,10}(\.[0-9]{1,2})?$")),
            ParamType::Instant => text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))),
            ParamType::VinPrefix => text().pattern(Some("^[A-HJ-NPR-Za-hj-npr-z0-9]{1,17}$")),
            ParamType::Cursor => text().min_length(Some(1)).max_length(Some(2 * MAX_TEXT_CHARS)),
        }
        .into()
    }

    /// Returns the end of the sentence that describes what is invalid in a value, or `None` if the value is valid.
    fn check_value(self, value: &str) -> Option<String> {
        match self {
            ParamType::Text if value.trim().is_empty() => Some("is empty".to_owned()),
            ParamType::Text if value.chars().count() > MAX_TEXT_CHARS => {
                Some(format!("is longer than {MAX_TEXT_CHARS} characters"))
            }
            ParamType::Text if value.contains('\0') => Some("contains a NUL".to_owned()),
            ParamType::Code(domain) => (!entries(domain).iter().any(|entry| entry.code == value))
                .then(|| format!("is not a code of {}", domain.name())),
            ParamType::OneOf(words) if !words.contains(&value) => Some(format!("is not one of {}", words.join(", "))),
            ParamType::Number(least, most) => match parse_integer(value) {
                Some(number) if (least..=most).contains(&number) => None,
                _ => Some(format!("is not a whole number from {least} to {most}")),
            },
            ParamType::Money => {
                parse_cents(value).is_none().then(|| "is not an amount such as 1250 or 1250.50".to_owned())
            }
            ParamType::Instant => DateTime::parse_from_rfc3339(value)
                .is_err()
                .then(|| "is not an instant such as 2026-03-06T17:00:00Z".to_owned()),
            ParamType::VinPrefix => {
                let letter = |c: char| c.is_ascii_alphanumeric() && !"IOQioq".contains(c);
                let right = (1..=17).contains(&value.len()) && value.chars().all(letter);
                (!right)
                    .then(|| "is not the beginning of a VIN, up to 17 letters and digits without I, O and Q".to_owned())
            }
            ParamType::Text | ParamType::OneOf(_) | ParamType::Cursor => None,
        }
    }
}

/// Parses a whole number of ASCII digits with an optional minus sign. A plus sign and blanks are invalid.
fn parse_integer(value: &str) -> Option<i64> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if number { value.parse().ok() } else { None }
}

/// Parses a decimal amount and returns it in cents.
fn parse_cents(value: &str) -> Option<i64> {
    let (whole, part) = value.split_once('.').unwrap_or((value, "0"));
    let digits =
        |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, 10) || !digits(part, 2) {
        return None;
    }
    let part: i64 = format!("{part:0<2}").parse().ok()?;
    Some(whole.parse::<i64>().ok()? * 100 + part)
}

/// Parsed and validated query parameters.
#[derive(Debug, Default)]
pub struct ParsedQuery {
    values: Vec<(&'static str, String)>,
}

impl ParsedQuery {
    /// Parses a query string.
    ///
    /// # Errors
    /// Returns the problem of the first parameter that is unknown, invalid, repeated too often or missing.
    pub fn parse(query: Option<&str>, known: &[&[QueryParam]]) -> Result<ParsedQuery, Problem> {
        let mut asked = ParsedQuery::default();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
            let Some(param) = known.iter().copied().flatten().find(|param| param.name == name) else {
                let name: String = name.chars().take(MAX_TEXT_CHARS).collect();
                return Err(Problem::invalid_parameter(&name, "is unknown to this resource"));
            };
            if let Some(complaint) = param.shape.check_value(&value) {
                return Err(Problem::invalid_parameter(param.name, complaint));
            }
            let before = asked.values(param.name).count();
            if before > 0 && !param.many {
                return Err(Problem::invalid_parameter(param.name, "is given more than once"));
            }
            if before >= MAX_REPEATS {
                return Err(Problem::invalid_parameter(param.name, format!("is given more than {MAX_REPEATS} times")));
            }
            asked.values.push((param.name, value.into_owned()));
        }
        let missing = known.iter().copied().flatten().find(|it| it.required && asked.value(it.name).is_none());
        match missing {
            Some(param) => Err(Problem::invalid_parameter(param.name, "is missing")),
            None => Ok(asked),
        }
    }

    /// Returns the first value of a parameter, or `None` if the request does not contain the parameter.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Returns all values of a parameter.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.values.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a parameter as a whole number.
    pub fn number(&self, name: &str) -> Option<i64> {
        parse_integer(self.value(name)?)
    }

    /// Returns the value of a parameter as an amount in cents.
    pub fn cents(&self, name: &str) -> Option<i64> {
        parse_cents(self.value(name)?)
    }

    /// Returns the value of a parameter as a time.
    pub fn instant(&self, name: &str) -> Option<DateTime<Utc>> {
        Some(DateTime::parse_from_rfc3339(self.value(name)?).ok()?.to_utc())
    }

    /// Returns all parameters except `names` as one sorted query string. Equal queries return equal strings.
    pub fn without_params(&self, names: &[&str]) -> String {
        let mut rest: Vec<_> = self.values.iter().filter(|(name, _)| !names.contains(name)).collect();
        rest.sort();
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(rest.into_iter().map(|(name, value)| (*name, value.as_str())));
        text.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN_PARAMS: &[QueryParam] = &[
        QueryParam::repeated("make", ParamType::Text, ""),
        QueryParam::optional("limit", ParamType::Number(1, 200), ""),
        QueryParam::optional("price_min", ParamType::Money, ""),
        QueryParam::optional("time", ParamType::Instant, ""),
        QueryParam::optional("vin", ParamType::VinPrefix, ""),
    ];

    fn wrong_parameter(query: &str) -> Option<String> {
        ParsedQuery::parse(Some(query), &[KNOWN_PARAMS]).err().and_then(|problem| problem.parameter)
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, parameter) in [
            ("makes=KIA", "makes"),
            ("make=", "make"),
            ("make=%00a", "make"),
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=+5", "limit"),
            ("limit=5&limit=5", "limit"),
            ("price_min=1e5", "price_min"),
            ("price_min=-1", "price_min"),
            ("price_min=1.234", "price_min"),
            ("time=yesterday", "time"),
            ("vin=1O", "vin"),
            ("vin=123456789012345678", "vin"),
        ] {
            assert_eq!(wrong_parameter(query).as_deref(), Some(parameter), "{query}");
        }
        let needed = QueryParam::required("time", ParamType::Instant, "");
        assert_eq!(ParsedQuery::parse(None, &[&[needed]]).unwrap_err().parameter.as_deref(), Some("time"));
    }

    #[test]
    fn what_is_right_is_read() {
        let asked = "make=KIA&make=A%26B&limit=50&price_min=12.5&time=2026-03-06T17:00:00%2B01:00";
        let asked = ParsedQuery::parse(Some(asked), &[KNOWN_PARAMS]).unwrap();
        assert_eq!(asked.values("make").collect::<Vec<_>>(), ["KIA", "A&B"]);
        assert_eq!(asked.number("limit"), Some(50));
        assert_eq!(asked.cents("price_min"), Some(1250));
        assert_eq!(asked.instant("time").unwrap().to_rfc3339(), "2026-03-06T16:00:00+00:00");
    }

    #[test]
    fn the_same_question_has_one_text() {
        let text = |query| ParsedQuery::parse(Some(query), &[KNOWN_PARAMS]).unwrap().without_params(&["limit"]);
        assert_eq!(text("make=KIA&limit=3&vin=1H"), text("vin=1H&make=KIA"));
        assert_ne!(text("make=KIA"), text("make=KI"));
    }
}
