//! Bills of materials: versions that never change, one of them active, and what it costs.
//!
//! A version is one more than the greatest of its owner, a listing or (as a scenario) an ASIN; its lines are written with
//! it and never again. A line change is a new version. Activation closes the active version and opens another in one
//! transaction.
//!
//! **Races.** Two drafts of one owner want the same number, two activations both want to be the one: the database's
//! unique indexes let one through, and the other is told by [`BomError::Outrun`] which version was faster. It is not tried
//! again by itself: whoever chose a version chose it over one that is no longer active, and should look. Two activations of
//! the same version are one.
//!
//! Costs are those of the components today, so an old version's cost moves when a component is repriced. Wastage is a
//! mark-up on the quantity (5 % more is bought), not a yield.
//!
//! The statements find their tables by the connection's search_path, since the schema is the operator's choice; so they are
//! not checked when compiling, and each is run by `tests/listing/bom.rs`.

use super::economics::{money, sum};
use rust_decimal::Decimal;
use sqlx::{Connection, PgConnection};
use std::collections::BTreeSet;

/// The constraints that say who was faster.
const RACES: &[&str] = &[
    "boms_listing_active_unique",
    "boms_asin_active_unique",
    "boms_version_unique",
    "boms_asin_version_unique",
];

/// Whose bill of materials it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A listing's own, by its id.
    Listing(i32),
    /// What an ASIN would take, by the id of its `asin_entities`.
    Asin(i32),
}

impl Owner {
    fn columns(self) -> (Option<i32>, Option<i32>) {
        match self {
            Owner::Listing(id) => (Some(id), None),
            Owner::Asin(id) => (None, Some(id)),
        }
    }
}

/// A line as it is written: how much of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `components.id`.
    pub component_id: i32,
    /// More than 0, up to four decimals.
    pub quantity: Decimal,
    /// From 0 to under 1, up to four decimals.
    pub wastage_rate: Decimal,
}

/// A line as it is costed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costed {
    /// How much.
    pub quantity: Decimal,
    /// What is bought besides, as a share.
    pub wastage_rate: Decimal,
    /// Of one unit, today.
    pub unit_cost_ex_vat: Decimal,
}

/// A version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// `boms.id`.
    pub id: i32,
    /// From 1 for each owner.
    pub version: i32,
}

/// What an activation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activated {
    /// The active one.
    pub now: Version,
    /// The one that was; none if there was none, or this was it already.
    pub before: Option<Version>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum BomError {
    /// No such version.
    #[error("there is no BOM {0}")]
    Unknown(i32),
    /// Without lines it costs nothing, which is never meant.
    #[error("a BOM has a line at least")]
    Empty,
    /// A line that no table would take.
    #[error("component {component_id}: {why}")]
    Line {
        /// Of the line.
        component_id: i32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Somebody else was faster.
    #[error("{what} was not done: {}; look at it, and come back if this one is still wanted", .winner.map_or_else(
        || "another change of this owner's BOMs came first".to_owned(),
        |winner| format!("version {winner} came first")
    ))]
    Outrun {
        /// What was wanted: "activation of version 3".
        what: String,
        /// The version that is active now, or was drafted.
        winner: Option<i32>,
    },
    /// The cost is beyond what can be said.
    #[error("the cost of BOM {0} does not fit")]
    TooMuch(i32),
    /// It could not be asked.
    #[error("ask the database about BOMs")]
    Database(#[from] sqlx::Error),
}

/// What the lines cost together, without VAT: quantity with wastage times unit cost, rounded to the cent once, at the end.
/// None where it does not fit.
pub fn cost_ex_vat(lines: &[Costed]) -> Option<Decimal> {
    let costs: Option<Vec<Decimal>> = lines
        .iter()
        .map(|line| {
            let bought = line.quantity.checked_mul(Decimal::ONE.checked_add(line.wastage_rate)?)?;
            bought.checked_mul(line.unit_cost_ex_vat)
        })
        .collect();
    sum(&costs?).map(money)
}

/// That the lines may be a version's.
pub fn check(lines: &[Line]) -> Result<(), BomError> {
    if lines.is_empty() {
        return Err(BomError::Empty);
    }
    let mut seen = BTreeSet::new();
    for line in lines {
        let wrong = |why| Err(BomError::Line { component_id: line.component_id, why });
        if line.quantity <= Decimal::ZERO {
            return wrong("the quantity is not more than 0");
        }
        if line.wastage_rate < Decimal::ZERO || line.wastage_rate >= Decimal::ONE {
            return wrong("the wastage is not from 0 to under 1");
        }
        // the table would round it, and the version be another than was asked for
        if line.quantity.normalize().scale() > 4 || line.wastage_rate.normalize().scale() > 4 {
            return wrong("more than four decimals");
        }
        if !seen.insert(line.component_id) {
            return wrong("it has two lines");
        }
    }
    Ok(())
}

/// Writes the next version of an owner's, not active, with its lines.
pub async fn draft(connection: &mut PgConnection, owner: Owner, lines: &[Line]) -> Result<Version, BomError> {
    check(lines)?;
    let mut tx = connection.begin().await?;
    let drafted = insert(&mut tx, owner, lines).await;
    match drafted {
        Ok(version) => {
            tx.commit().await?;
            Ok(version)
        }
        Err(error) if is_race(&error) => {
            tx.rollback().await?;
            let winner = newest(connection, owner).await?;
            Err(BomError::Outrun { what: "the new version".to_owned(), winner })
        }
        Err(error) => Err(error.into()),
    }
}

async fn insert(connection: &mut PgConnection, owner: Owner, lines: &[Line]) -> sqlx::Result<Version> {
    let (listing, asin) = owner.columns();
    let (id, version): (i32, i32) = sqlx::query_as(
        "-- bom: draft
         insert into boms (listing_id, asin_entity_id, scope_type, version, effective_from)
         select
           $1,
           $2,
           (case when $2 is null then 'LISTING' else 'ASIN_SCENARIO' end)::bom_scope_type,
           coalesce(max(version), 0) + 1,
           now() at time zone 'UTC'
         from boms
         where listing_id = $1
           or asin_entity_id = $2
         returning id, version",
    )
    .bind(listing)
    .bind(asin)
    .fetch_one(&mut *connection)
    .await?;
    for line in lines {
        sqlx::query(
            "-- bom: line
             insert into bom_lines (bom_id, component_id, quantity, wastage_rate)
             values ($1, $2, $3::text::numeric, $4::text::numeric)",
        )
        .bind(id)
        .bind(line.component_id)
        .bind(line.quantity.to_string())
        .bind(line.wastage_rate.to_string())
        .execute(&mut *connection)
        .await?;
    }
    Ok(Version { id, version })
}

async fn newest(connection: &mut PgConnection, owner: Owner) -> sqlx::Result<Option<i32>> {
    let (listing, asin) = owner.columns();
    sqlx::query_scalar(
        "-- bom: newest
         select max(version)
         from boms
         where listing_id = $1
           or asin_entity_id = $2",
    )
    .bind(listing)
    .bind(asin)
    .fetch_one(connection)
    .await
}

/// Makes a version its owner's active one, and closes the one that was.
pub async fn activate(connection: &mut PgConnection, id: i32) -> Result<Activated, BomError> {
    let wanted: Option<(i32, bool, Option<i32>, Option<i32>)> = sqlx::query_as(
        "-- bom: wanted
         select version, is_active, listing_id, asin_entity_id
         from boms
         where id = $1",
    )
    .bind(id)
    .fetch_optional(&mut *connection)
    .await?;
    let (version, active, listing, asin) = wanted.ok_or(BomError::Unknown(id))?;
    let now = Version { id, version };
    if active {
        return Ok(Activated { now, before: None });
    }
    let mut tx = connection.begin().await?;
    match turn(&mut tx, id, listing, asin).await {
        Ok(before) => {
            tx.commit().await?;
            Ok(Activated { now, before })
        }
        Err(error) if is_race(&error) => {
            tx.rollback().await?;
            let winner = sqlx::query_scalar(
                "-- bom: winner
                 select version
                 from boms
                 where is_active
                   and (listing_id = $1 or asin_entity_id = $2)",
            )
            .bind(listing)
            .bind(asin)
            .fetch_optional(&mut *connection)
            .await?;
            Err(BomError::Outrun { what: format!("activation of version {version}"), winner })
        }
        Err(error) => Err(error.into()),
    }
}

/// Both halves. Of two at once the second waits at the first's row, or at its entry in the index; then the row is closed
/// already, and the entry is there: it breaks the unique index, as it must.
async fn turn(
    connection: &mut PgConnection,
    id: i32,
    listing: Option<i32>,
    asin: Option<i32>,
) -> sqlx::Result<Option<Version>> {
    let before: Option<(i32, i32)> = sqlx::query_as(
        "-- bom: close
         update boms
         set
           is_active = false,
           effective_to = now() at time zone 'UTC',
           updated_at = now() at time zone 'UTC'
         where is_active
           and id <> $1
           and (listing_id = $2 or asin_entity_id = $3)
         returning id, version",
    )
    .bind(id)
    .bind(listing)
    .bind(asin)
    .fetch_optional(&mut *connection)
    .await?;
    // none is touched where somebody has activated the same one meanwhile
    sqlx::query(
        "-- bom: open
         update boms
         set
           is_active = true,
           effective_from = now() at time zone 'UTC',
           effective_to = null,
           updated_at = now() at time zone 'UTC'
         where id = $1
           and not is_active",
    )
    .bind(id)
    .execute(&mut *connection)
    .await?;
    Ok(before.map(|(id, version)| Version { id, version }))
}

/// What a version costs with the components' prices of today.
pub async fn cost_of(connection: &mut PgConnection, id: i32) -> Result<Decimal, BomError> {
    let lines: Vec<(String, String, String)> = sqlx::query_as(
        "-- bom: costs
         select l.quantity::text, coalesce(l.wastage_rate, 0)::text, c.unit_cost_ex_vat::text
         from bom_lines as l
         join components as c on c.id = l.component_id
         where l.bom_id = $1",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    let number = |text: &str| text.parse().map_err(|_| BomError::TooMuch(id));
    let mut costed = Vec::new();
    for (quantity, wastage_rate, unit_cost_ex_vat) in &lines {
        costed.push(Costed {
            quantity: number(quantity)?,
            wastage_rate: number(wastage_rate)?,
            unit_cost_ex_vat: number(unit_cost_ex_vat)?,
        });
    }
    cost_ex_vat(&costed).ok_or(BomError::TooMuch(id))
}

fn is_race(error: &sqlx::Error) -> bool {
    let told = error.as_database_error();
    told.and_then(|told| told.constraint()).is_some_and(|constraint| RACES.contains(&constraint))
}
