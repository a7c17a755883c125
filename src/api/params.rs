//! What may be asked: parameters as data, from which requests are read and the OpenAPI document is written, so that the two
//! cannot differ.
//!
//! Everything that is not foreseen is refused with its name: a misspelt filter that is passed over shows the reader all
//! there is, and he believes it.

use super::problem::Problem;
use crate::taxonomy::{Domain, entries};
use chrono::{DateTime, Utc};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Required};

/// The longest text a parameter may hold, in characters.
const LONGEST: usize = 100;
/// The most values of one parameter.
const MANY: usize = 50;

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Any words.
    Text,
    /// A code of a taxonomy.
    Code(Domain),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A whole number between these.
    Number(i64, i64),
    /// An amount of money, such as 1250 or 1250.50.
    Money,
    /// An instant, RFC 3339.
    Instant,
    /// The beginning of a VIN, or all of it.
    VinPrefix,
    /// What a page gave to go on with.
    Cursor,
}

/// A parameter of a query.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it looks like.
    pub shape: Shape,
    /// Whether it may be given more than once; the values are then alternatives.
    pub many: bool,
    /// Whether it must be given.
    pub required: bool,
    /// What it does, one line.
    pub about: &'static str,
}

impl Param {
    /// A parameter that may be given once.
    pub const fn one(name: &'static str, shape: Shape, about: &'static str) -> Param {
        Param { name, shape, many: false, required: false, about }
    }

    /// One that may be given several times.
    pub const fn many(name: &'static str, shape: Shape, about: &'static str) -> Param {
        Param { name, shape, many: true, required: false, about }
    }

    /// One that must be given.
    pub const fn needed(name: &'static str, shape: Shape, about: &'static str) -> Param {
        Param { name, shape, many: false, required: true, about }
    }

    /// As OpenAPI has it.
    pub fn document(&self) -> Parameter {
        let schema = self.shape.schema();
        let schema: RefOr<Schema> = if self.many {
            ArrayBuilder::new().items(schema).min_items(Some(1)).max_items(Some(MANY)).into()
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

/// `lang`, which every answer with labels knows.
pub const LANG: Param = Param::one(
    "lang",
    Shape::OneOf(&["en", "ru"]),
    "Language of the labels, by default that of the Accept-Language header",
);

impl Shape {
    fn schema(self) -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        match self {
            Shape::Text => {
                text().min_length(Some(1)).max_length(Some(LONGEST)).pattern(Some(r"^[^\x00]*\S[^\x00]*$"))
            }
            Shape::Code(domain) => {
                text().enum_values(Some(entries(domain).iter().map(|entry| entry.code.as_str())))
            }
            Shape::OneOf(words) => text().enum_values(Some(words.to_vec())),
            Shape::Number(least, most) => ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(least as f64))
                .maximum(Some(most as f64)),
            Shape::Money => text().pattern(Some(r"^[0-9]{1,10}(\.[0-9]{1,2})?$")),
            Shape::Instant => text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))),
            Shape::VinPrefix => text().pattern(Some("^[A-HJ-NPR-Za-hj-npr-z0-9]{1,17}$")),
            Shape::Cursor => text().min_length(Some(1)).max_length(Some(2 * LONGEST)),
        }
        .into()
    }

    /// What is wrong with this value.
    fn complaint(self, value: &str) -> Option<String> {
        match self {
            Shape::Text if value.trim().is_empty() => Some("is empty".to_owned()),
            Shape::Text if value.chars().count() > LONGEST => {
                Some(format!("is longer than {LONGEST} characters"))
            }
            Shape::Text if value.contains('\0') => Some("contains a NUL".to_owned()),
            Shape::Code(domain) => (!entries(domain).iter().any(|entry| entry.code == value))
                .then(|| format!("is not a code of {}", domain.name())),
            Shape::OneOf(words) if !words.contains(&value) => {
                Some(format!("is not one of {}", words.join(", ")))
            }
            Shape::Number(least, most) => match whole(value) {
                Some(number) if (least..=most).contains(&number) => None,
                _ => Some(format!("is not a whole number from {least} to {most}")),
            },
            Shape::Money => {
                cents(value).is_none().then(|| "is not an amount such as 1250 or 1250.50".to_owned())
            }
            Shape::Instant => DateTime::parse_from_rfc3339(value)
                .is_err()
                .then(|| "is not an instant such as 2026-03-06T17:00:00Z".to_owned()),
            Shape::VinPrefix => {
                let letter = |c: char| c.is_ascii_alphanumeric() && !"IOQioq".contains(c);
                let right = (1..=17).contains(&value.len()) && value.chars().all(letter);
                (!right).then(|| {
                    "is not the beginning of a VIN, up to 17 letters and digits without I, O and Q".to_owned()
                })
            }
            Shape::Text | Shape::OneOf(_) | Shape::Cursor => None,
        }
    }
}

/// A whole number without sign tricks, blanks or leading zeros that would give it two spellings.
fn whole(value: &str) -> Option<i64> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if number { value.parse().ok() } else { None }
}

/// Cents of an amount.
fn cents(value: &str) -> Option<i64> {
    let (whole, part) = value.split_once('.').unwrap_or((value, "0"));
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(whole, 10) || !digits(part, 2) {
        return None;
    }
    let part: i64 = format!("{part:0<2}").parse().ok()?;
    Some(whole.parse::<i64>().ok()? * 100 + part)
}

/// A query that was read and is as it should be.
#[derive(Debug, Default)]
pub struct Asked {
    values: Vec<(&'static str, String)>,
}

impl Asked {
    /// Reads a query string; the first parameter that is unknown, wrong, given too often or not at all is the problem.
    pub fn read(query: Option<&str>, known: &[&[Param]]) -> Result<Asked, Problem> {
        let mut asked = Asked::default();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
            let Some(param) = known.iter().copied().flatten().find(|param| param.name == name) else {
                let name: String = name.chars().take(LONGEST).collect();
                return Err(Problem::parameter(&name, "is unknown to this resource"));
            };
            if let Some(complaint) = param.shape.complaint(&value) {
                return Err(Problem::parameter(param.name, complaint));
            }
            let before = asked.all(param.name).count();
            if before > 0 && !param.many {
                return Err(Problem::parameter(param.name, "is given more than once"));
            }
            if before >= MANY {
                return Err(Problem::parameter(param.name, format!("is given more than {MANY} times")));
            }
            asked.values.push((param.name, value.into_owned()));
        }
        let missing = known.iter().copied().flatten().find(|it| it.required && asked.one(it.name).is_none());
        match missing {
            Some(param) => Err(Problem::parameter(param.name, "is missing")),
            None => Ok(asked),
        }
    }

    /// The value, if given.
    pub fn one(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// All values.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.values.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<i64> {
        whole(self.one(name)?)
    }

    /// Cents.
    pub fn cents(&self, name: &str) -> Option<i64> {
        cents(self.one(name)?)
    }

    /// An instant.
    pub fn instant(&self, name: &str) -> Option<DateTime<Utc>> {
        Some(DateTime::parse_from_rfc3339(self.one(name)?).ok()?.to_utc())
    }

    /// Everything asked but these, as one text that is the same however the query was written.
    pub fn without(&self, names: &[&str]) -> String {
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

    const KNOWN: &[Param] = &[
        Param::many("make", Shape::Text, ""),
        Param::one("limit", Shape::Number(1, 200), ""),
        Param::one("price_min", Shape::Money, ""),
        Param::one("time", Shape::Instant, ""),
        Param::one("vin", Shape::VinPrefix, ""),
    ];

    fn wrong(query: &str) -> Option<String> {
        Asked::read(Some(query), &[KNOWN]).err().and_then(|problem| problem.parameter)
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
            assert_eq!(wrong(query).as_deref(), Some(parameter), "{query}");
        }
        let needed = Param::needed("time", Shape::Instant, "");
        assert_eq!(Asked::read(None, &[&[needed]]).unwrap_err().parameter.as_deref(), Some("time"));
    }

    #[test]
    fn what_is_right_is_read() {
        let asked = "make=KIA&make=A%26B&limit=50&price_min=12.5&time=2026-03-06T17:00:00%2B01:00";
        let asked = Asked::read(Some(asked), &[KNOWN]).unwrap();
        assert_eq!(asked.all("make").collect::<Vec<_>>(), ["KIA", "A&B"]);
        assert_eq!(asked.number("limit"), Some(50));
        assert_eq!(asked.cents("price_min"), Some(1250));
        assert_eq!(asked.instant("time").unwrap().to_rfc3339(), "2026-03-06T16:00:00+00:00");
    }

    #[test]
    fn the_same_question_has_one_text() {
        let text = |query| Asked::read(Some(query), &[KNOWN]).unwrap().without(&["limit"]);
        assert_eq!(text("make=KIA&limit=3&vin=1H"), text("vin=1H&make=KIA"));
        assert_ne!(text("make=KIA"), text("make=KI"));
    }
}
