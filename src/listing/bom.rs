//! Bills of materials: immutable versions, one of them active, and the cost of a version.
//!
//! The number of a new version is one more than the greatest of its owner. The owner is a listing or (as a scenario) an
//! ASIN. The lines of a version are written with it and never changed. A line change is a new version. Activation
//! closes the active version and opens another in one transaction.
//!
//! **Races.** Two drafts of one owner compete for the same number, and two activations compete for the active version.
//! The database's unique indexes let one through, and the other gets [`BomError::Outrun`] with the version that came
//! first. The call is not retried automatically: the caller chose the version over one that is no longer active, and
//! must decide again. Two activations of the same version are one.
//!
//! Costs use the components' current prices, so an old version's cost changes when a component is repriced. Wastage is
//! a mark-up on the quantity (5 % more is bought), not a yield.
//!
//! The statements find their tables by the connection's search_path, since the operator chooses the schema. They are
//! therefore not checked at compile time, and each is run by `tests/listing/bom.rs`.

use super::economics::{checked_sum, round_to_cents};
use rust_decimal::Decimal;
use sqlx::{Connection, PgConnection};
use std::collections::BTreeSet;

/// The unique constraints whose violation means that a concurrent change came first.
const RACE_CONSTRAINTS: &[&str] =
    &["boms_listing_active_unique", "boms_asin_active_unique", "boms_version_unique", "boms_asin_version_unique"];

/// The owner of a bill of materials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BomOwner {
    /// A listing, by its id.
    Listing(i32),
    /// An ASIN for a scenario, by the id of its `asin_entities` row.
    Asin(i32),
}

impl BomOwner {
    fn owner_columns(self) -> (Option<i32>, Option<i32>) {
        match self {
            BomOwner::Listing(id) => (Some(id), None),
            BomOwner::Asin(id) => (None, Some(id)),
        }
    }
}

/// A line to write: a component and its quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BomLine {
    /// The value of `components.id`.
    pub component_id: i32,
    /// Quantity greater than 0, with up to four decimal places.
    pub quantity: Decimal,
    /// Share from 0 to under 1, with up to four decimal places.
    pub wastage_rate: Decimal,
}

/// A line with the price of its component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostedBomLine {
    /// Quantity without wastage.
    pub quantity: Decimal,
    /// Share of the quantity that is bought in addition.
    pub wastage_rate: Decimal,
    /// Current cost of one unit, without VAT.
    pub unit_cost_ex_vat: Decimal,
}

/// A version of a bill of materials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BomVersion {
    /// The value of `boms.id`.
    pub id: i32,
    /// Version number, from 1 for each owner.
    pub version: i32,
}

/// The result of an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BomActivation {
    /// The active version.
    pub now: BomVersion,
    /// The version that was active before. None if there was none, or if `now` was already active.
    pub before: Option<BomVersion>,
}

/// The error of a BOM operation.
#[derive(Debug, thiserror::Error)]
pub enum BomError {
    /// The version does not exist.
    #[error("BOM {0} does not exist")]
    Unknown(i32),
    /// The version has no lines and would cost nothing.
    #[error("the BOM has no lines")]
    Empty,
    /// A line violates a rule of its table.
    #[error("invalid BOM line of component {component_id}: {why}")]
    Line {
        /// The component of the line.
        component_id: i32,
        /// The violated rule.
        why: &'static str,
    },
    /// A concurrent change came first.
    #[error(
        "{what} failed: {}\nhint: check the current versions, and repeat the call if the change is still wanted",
        .winner.map_or_else(
            || "another change of this owner's BOMs came first".to_owned(),
            |winner| format!("version {winner} came first")
        )
    )]
    Outrun {
        /// The failed operation, such as "activation of version 3".
        what: String,
        /// The version that is active now or was drafted, or None if there is none.
        winner: Option<i32>,
    },
    /// The cost is out of range.
    #[error("the cost of BOM {0} is out of range")]
    TooMuch(i32),
    /// A statement failed.
    #[error("could not query the BOM tables")]
    Database(#[from] sqlx::Error),
}

/// Returns the cost of the lines without VAT: quantity with wastage times unit cost, rounded to the cent once, at the
/// end. Returns None if the cost is out of range.
pub fn cost_ex_vat(lines: &[CostedBomLine]) -> Option<Decimal> {
    let costs: Option<Vec<Decimal>> = lines
        .iter()
        .map(|line| {
            let bought = line.quantity.checked_mul(Decimal::ONE.checked_add(line.wastage_rate)?)?;
            bought.checked_mul(line.unit_cost_ex_vat)
        })
        .collect();
    checked_sum(&costs?).map(round_to_cents)
}

/// Checks that a version may have these lines.
///
/// # Errors
/// Returns [`BomError::Empty`] without lines, and [`BomError::Line`] for the first invalid line.
pub fn check_lines(lines: &[BomLine]) -> Result<(), BomError> {
    if lines.is_empty() {
        return Err(BomError::Empty);
    }
    let mut seen = BTreeSet::new();
    for line in lines {
        let wrong = |why| Err(BomError::Line { component_id: line.component_id, why });
        if line.quantity <= Decimal::ZERO {
            return wrong("the quantity must be greater than 0");
        }
        if line.wastage_rate < Decimal::ZERO || line.wastage_rate >= Decimal::ONE {
            return wrong("the wastage rate must be from 0 to under 1");
        }
        // The table would round the value, so the version would differ from the request.
        if line.quantity.normalize().scale() > 4 || line.wastage_rate.normalize().scale() > 4 {
            return wrong("a value has more than four decimal places");
        }
        if !seen.insert(line.component_id) {
            return wrong("the component has two lines");
        }
    }
    Ok(())
}

/// Inserts an owner's next version with its lines, not active. Returns the version.
///
/// # Errors
/// Returns an error for invalid lines, and [`BomError::Outrun`] if a concurrent draft took the number.
pub async fn draft_version(
    connection: &mut PgConnection,
    owner: BomOwner,
    lines: &[BomLine],
) -> Result<BomVersion, BomError> {
    check_lines(lines)?;
    let mut tx = connection.begin().await?;
    let drafted = insert_version(&mut tx, owner, lines).await;
    match drafted {
        Ok(version) => {
            tx.commit().await?;
            Ok(version)
        }
        Err(error) if is_race(&error) => {
            tx.rollback().await?;
            let winner = newest_version(connection, owner).await?;
            Err(BomError::Outrun { what: "draft of a new version".to_owned(), winner })
        }
        Err(error) => Err(error.into()),
    }
}

async fn insert_version(connection: &mut PgConnection, owner: BomOwner, lines: &[BomLine]) -> sqlx::Result<BomVersion> {
    let (listing, asin) = owner.owner_columns();
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
    Ok(BomVersion { id, version })
}

async fn newest_version(connection: &mut PgConnection, owner: BomOwner) -> sqlx::Result<Option<i32>> {
    let (listing, asin) = owner.owner_columns();
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

/// Activates a version and closes the owner's active one, in one transaction.
///
/// # Errors
/// Returns [`BomError::Unknown`] if the version does not exist, and [`BomError::Outrun`] if a concurrent activation
/// came first.
pub async fn activate_version(connection: &mut PgConnection, id: i32) -> Result<BomActivation, BomError> {
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
    let now = BomVersion { id, version };
    if active {
        return Ok(BomActivation { now, before: None });
    }
    let mut tx = connection.begin().await?;
    match switch_active(&mut tx, id, listing, asin).await {
        Ok(before) => {
            tx.commit().await?;
            Ok(BomActivation { now, before })
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

/// Closes the active version and opens another. Of two concurrent calls the second waits for the first's row, or for
/// its entry in the index. By then the row is closed and the entry exists, so the second call violates the unique
/// index, as intended.
async fn switch_active(
    connection: &mut PgConnection,
    id: i32,
    listing: Option<i32>,
    asin: Option<i32>,
) -> sqlx::Result<Option<BomVersion>> {
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
    // Updates no row if a concurrent call has activated the same version.
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
    Ok(before.map(|(id, version)| BomVersion { id, version }))
}

/// Returns the cost of a version at the components' current prices.
pub async fn version_cost(connection: &mut PgConnection, id: i32) -> Result<Decimal, BomError> {
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
        costed.push(CostedBomLine {
            quantity: number(quantity)?,
            wastage_rate: number(wastage_rate)?,
            unit_cost_ex_vat: number(unit_cost_ex_vat)?,
        });
    }
    cost_ex_vat(&costed).ok_or(BomError::TooMuch(id))
}

fn is_race(error: &sqlx::Error) -> bool {
    let database_error = error.as_database_error();
    database_error
        .and_then(|database_error| database_error.constraint())
        .is_some_and(|constraint| RACE_CONSTRAINTS.contains(&constraint))
}
