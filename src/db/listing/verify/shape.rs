//! Checks that read the catalog, the registry and the settings.

use super::index::index;
use super::{Answer, known};
use crate::db::listing::{self, Place};
use crate::db::migrations::LISTING;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use std::collections::BTreeSet;

type Asked = anyhow::Result<Answer>;

/// Returns the columns of a table as `name type`, in order. Empty if it is no ordinary table.
async fn columns(connection: &mut PgConnection, table: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"-- verify: columns
        select a.attname || ' ' || format_type(a.atttypid, a.atttypmod) as "column!"
        from pg_class as c
        join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.oid = to_regclass($1)
          and c.relkind in ('r', 'p')
        order by a.attnum"#,
        table
    )
    .fetch_all(connection)
    .await
}

async fn slice(connection: &mut PgConnection, slice: &str) -> Asked {
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    for (table, wanted) in known::columns(slice) {
        let has = columns(connection, table).await?;
        if has.is_empty() {
            wrong.push(format!("table {table} is missing"));
            continue;
        }
        // additional columns are allowed
        let lacking: Vec<_> =
            wanted.iter().filter(|column| !has.iter().any(|it| it == **column)).copied().collect();
        if !lacking.is_empty() {
            wrong.push(format!("{table} lacks {}", lacking.join(", ")));
        }
        told.push(format!("{table} ({} columns)", has.len()));
    }
    // the columns of these two are checked by other lines
    for table in match slice {
        "002" => ["jobs"].as_slice(),
        "003" => ["feature_store"].as_slice(),
        _ => &[],
    } {
        match columns(connection, table).await?.len() {
            0 => wrong.push(format!("table {table} is missing")),
            n => told.push(format!("{table} ({n} columns)")),
        }
    }
    Ok(Answer::of(&wrong, told.join(", ")))
}

pub async fn slice_a(connection: &mut PgConnection, _: &Place) -> Asked {
    slice(connection, "001").await
}

pub async fn slice_b(connection: &mut PgConnection, _: &Place) -> Asked {
    slice(connection, "002").await
}

pub async fn slice_c(connection: &mut PgConnection, _: &Place) -> Asked {
    slice(connection, "003").await
}

pub async fn slice_d(connection: &mut PgConnection, _: &Place) -> Asked {
    slice(connection, "004").await
}

pub async fn base(connection: &mut PgConnection, _: &Place) -> Asked {
    let mut wrong = Vec::new();
    for (table, wanted) in known::columns("base") {
        let has = columns(connection, table).await?;
        if has.is_empty() {
            wrong.push(format!("table {table} is missing"));
            continue;
        }
        let lacking = wanted.iter().filter(|name| !has.iter().any(|it| it.split(' ').next() == Some(**name)));
        wrong.extend(lacking.map(|name| format!("{table} lacks {name}")));
    }
    if wrong.is_empty() {
        let queries = "select 1 from listings limit 1; select 1 from settings limit 1";
        super::done(connection, queries.into()).await?;
    }
    Ok(Answer::of(&wrong, "both tables are readable"))
}

pub async fn backups(connection: &mut PgConnection, _: &Place) -> Asked {
    #[derive(FromRow)]
    struct Line {
        before: String,
        row_count: i64,
        path: Option<String>,
        waived_by: Option<String>,
    }
    let lines: Vec<Line> = sqlx::query_as(
        "-- verify: backups
         select before, row_count, path, waived_by
         from vinops.backups
         where set_name = 'listing'
         order by taken_at",
    )
    .fetch_all(connection)
    .await?;
    let bare = |line: &&Line| line.row_count > 0 && line.path.is_none() && line.waived_by.is_none();
    let mut wrong: Vec<_> = lines
        .iter()
        .filter(bare)
        .map(|line| format!("{} rows existed before {} without a backup", line.row_count, line.before))
        .collect();
    if lines.is_empty() {
        wrong.push("the rows that existed before the migrations are not recorded".to_owned());
    }
    let told = lines.iter().map(|line| match (&line.path, &line.waived_by) {
        (Some(path), _) => format!("before {}: {} rows in {path}", line.before, line.row_count),
        (None, Some(who)) => format!("before {}: waived by {who}", line.before),
        (None, None) => format!("before {}: no rows", line.before),
    });
    Ok(Answer::of(&wrong, told.collect::<Vec<_>>().join("; ")))
}

async fn has(connection: &mut PgConnection, wanted: &[&str]) -> Asked {
    let has = columns(connection, "listings").await?;
    let lacking = wanted.iter().filter(|column| !has.iter().any(|it| it.starts_with(**column)));
    let wrong: Vec<_> = lacking.map(|column| format!("listings lacks {column}")).collect();
    Ok(Answer::of(&wrong, format!("listings has {}", wanted.join(", "))))
}

pub async fn listings_a(connection: &mut PgConnection, _: &Place) -> Asked {
    let wanted = [
        "marketplace_id integer",
        "price_inc_vat numeric(10,2)",
        "seller_sku character varying(100)",
        "available_quantity integer",
    ];
    let mut answer = has(connection, &wanted).await?;
    if answer.passed {
        let none: i64 = sqlx::query_scalar(
            "-- verify: without a marketplace
             select count(*)
             from listings
             where marketplace_id is null",
        )
        .fetch_one(connection)
        .await?;
        answer.evidence += &format!("; {none} listings without a marketplace");
    }
    Ok(answer)
}

pub async fn listings_b(connection: &mut PgConnection, _: &Place) -> Asked {
    // the lengths come from the base if it has these columns
    let wanted =
        ["status character varying", "fulfillment_channel character varying", "category character varying"];
    has(connection, &wanted).await
}

pub async fn changed_c(connection: &mut PgConnection, _: &Place) -> Asked {
    let tie = sqlx::query_scalar!(
        r#"-- verify: boms to ASINs
        select pg_get_constraintdef(oid) || case when convalidated then '' else ' not valid' end as "tie!"
        from pg_constraint
        where conrelid = to_regclass('boms')
          and conname = 'boms_asin_entity_fk'"#
    )
    .fetch_optional(&mut *connection)
    .await?;
    let tie = tie.unwrap_or_else(|| "missing".to_owned());
    let answer = has(connection, &["asin character varying"]).await?;
    let right = "FOREIGN KEY (asin_entity_id) REFERENCES asin_entities(id) ON DELETE CASCADE";
    if tie != right {
        return Ok(Answer::new(false, format!("boms_asin_entity_fk: {tie}; expected: {right}")));
    }
    Ok(Answer::new(answer.passed, format!("{tie}; {}", answer.evidence)))
}

pub async fn same_files(connection: &mut PgConnection, _: &Place) -> Asked {
    let lines: Vec<(String, String)> = sqlx::query_as(
        "-- verify: files
         select id, sha256
         from vinops.migrations
         where set_name = 'listing'
         order by id",
    )
    .fetch_all(connection)
    .await?;
    let other = lines.iter().filter(|(id, sha256)| {
        LISTING.active().find(|migration| migration.id == id).is_none_or(|it| it.sha256() != *sha256)
    });
    let wrong: Vec<_> = other.map(|(id, _)| format!("{id} was applied from another file")).collect();
    let told = lines.iter().map(|(id, sha256)| format!("{id} {sha256:.8}"));
    Ok(Answer::of(&wrong, told.collect::<Vec<_>>().join(", ")))
}

pub async fn listing_active(connection: &mut PgConnection, _: &Place) -> Asked {
    let found = index(connection, "boms_listing_active_unique").await?;
    let right = "unique boms (listing_id) where is_active and scope_type = 'listing'";
    Ok(Answer::new(found == right, found))
}

async fn exact(connection: &mut PgConnection, table: &str) -> anyhow::Result<(bool, String)> {
    let names = |columns: &[&str]| {
        columns.iter().filter_map(|column| column.split(' ').next()).collect::<Vec<_>>().join(", ")
    };
    let has = columns(connection, table).await?;
    let has: Vec<&str> = has.iter().map(String::as_str).collect();
    let wanted: Vec<&str> =
        known::columns("exact").filter(|(name, _)| *name == table).flat_map(|it| it.1).collect();
    if has == wanted {
        return Ok((true, format!("{table} has {} columns: {}", has.len(), names(&has))));
    }
    Ok((false, format!("{table} has {}; expected: {}", has.join(", "), wanted.join(", "))))
}

async fn words(connection: &mut PgConnection, name: &str) -> Asked {
    let has = sqlx::query_scalar!(
        r#"-- verify: words of an enum
        select enumlabel::text as "word!"
        from pg_enum
        where enumtypid = to_regtype($1)
        order by enumsortorder"#,
        name
    )
    .fetch_all(connection)
    .await?;
    let wanted = known::ENUMS.iter().find(|(known, _)| *known == name).map_or(&[] as &[&str], |it| it.1);
    let told = format!("{name} {{{}}}", has.join(","));
    if has == wanted {
        return Ok(Answer::new(true, told));
    }
    Ok(Answer::new(false, format!("{told}; expected: {{{}}}", wanted.join(","))))
}

/// Combines two results into one.
fn both(one: (bool, String), other: Answer) -> Answer {
    Answer::new(one.0 && other.passed, format!("{}; {}", one.1, other.evidence))
}

pub async fn jobs(connection: &mut PgConnection, _: &Place) -> Asked {
    let (passed, evidence) = exact(connection, "jobs").await?;
    Ok(Answer::new(passed, evidence))
}

pub async fn job_type(connection: &mut PgConnection, _: &Place) -> Asked {
    words(connection, "job_type").await
}

pub async fn job_status(connection: &mut PgConnection, _: &Place) -> Asked {
    words(connection, "job_status").await
}

async fn readable(connection: &mut PgConnection, table: &str) -> anyhow::Result<(bool, String)> {
    let columns = columns(connection, table).await?.len();
    Ok((columns > 0, format!("{table} has {columns} columns")))
}

pub async fn listing_events(connection: &mut PgConnection, _: &Place) -> Asked {
    let table = readable(connection, "listing_events").await?;
    Ok(both(table, words(connection, "listing_event_type").await?))
}

pub async fn recommendation_events(connection: &mut PgConnection, _: &Place) -> Asked {
    let table = readable(connection, "recommendation_events").await?;
    Ok(both(table, words(connection, "recommendation_event_type").await?))
}

pub async fn features(connection: &mut PgConnection, _: &Place) -> Asked {
    let table = exact(connection, "feature_store").await?;
    Ok(both(table, words(connection, "feature_entity_type").await?))
}

pub async fn indexes(connection: &mut PgConnection, place: &Place) -> Asked {
    let found = sqlx::query!(
        r#"-- verify: whole indexes
        select
          count(*) as "all!",
          string_agg(c.relname, ', ') filter (where not (i.indisvalid and i.indisready)) as broken
        from pg_index as i
        join pg_class as c on c.oid = i.indexrelid
        where c.relnamespace = to_regnamespace($1)"#,
        place.schema()
    )
    .fetch_one(connection)
    .await?;
    let wrong: Vec<_> = found.broken.iter().map(|names| format!("not valid: {names}")).collect();
    let told = format!(
        "{} indexes, all valid; a slice builds its own in one transaction and takes its locks once: run it in a \
         maintenance window",
        found.all
    );
    Ok(Answer::of(&wrong, told))
}

pub async fn count(connection: &mut PgConnection, place: &Place) -> Asked {
    let base: Option<i32> = sqlx::query_scalar(
        "-- verify: tables of the base
         select base_tables
         from vinops.places
         where set_name = 'listing'",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let base = usize::try_from(base.unwrap_or(7))?;
    let things = listing::things(connection, place).await?;
    let has = things.iter().filter(|it| it.thing.starts_with("table ")).count();
    let mut total = base;
    let mut told = vec![format!("{base} of the base")];
    for (slice, tables) in known::COUNTS {
        total += tables;
        told.push(format!("{total} after {slice}"));
    }
    Ok(Answer::new(has == total, format!("{has} base tables; expected: {}", told.join(", "))))
}

pub async fn enums(connection: &mut PgConnection, place: &Place) -> Asked {
    let things = listing::things(connection, place).await?;
    let has: BTreeSet<&str> = things.iter().filter_map(|it| it.thing.strip_prefix("type ")).collect();
    let wanted: BTreeSet<&str> = known::ENUMS.iter().map(|(name, _)| *name).collect();
    let mut wrong: Vec<_> = wanted.difference(&has).map(|name| format!("{name} is missing")).collect();
    wrong.extend(has.difference(&wanted).map(|name| format!("{name} is not one of the 11")));
    Ok(Answer::of(&wrong, format!("{}: {}", has.len(), has.iter().copied().collect::<Vec<_>>().join(", "))))
}

pub async fn references(connection: &mut PgConnection, _: &Place) -> Asked {
    let has = sqlx::query_scalar!(
        r#"-- verify: references
        select format('%s: %s to %s', conname, conrelid::regclass, confrelid::regclass) as "reference!"
        from pg_constraint
        where contype = 'f'
          and conrelid in (to_regclass('boms'), to_regclass('jobs'), to_regclass('recommendations'))
        order by conname"#
    )
    .fetch_all(connection)
    .await?;
    let absent = known::REFERENCES.iter().filter(|wanted| !has.iter().any(|it| it == **wanted));
    let mut wrong: Vec<_> = absent.map(|wanted| format!("missing: {wanted}")).collect();
    let more = has.iter().filter(|it| !known::REFERENCES.contains(&it.as_str()));
    wrong.extend(more.map(|it| format!("unexpected: {it}")));
    Ok(Answer::of(&wrong, format!("{}: {}", has.len(), has.join(", "))))
}

pub async fn seeded(connection: &mut PgConnection, _: &Place) -> Asked {
    let has = listing::settings(connection).await?;
    let (mut wrong, mut edited) = (Vec::new(), Vec::new());
    for (key, seed) in known::SETTINGS {
        let seed: Value = serde_json::from_str(seed)?;
        let same_kind =
            |value: &Value| (value.is_number(), value.is_boolean()) == (seed.is_number(), seed.is_boolean());
        match has.get(*key) {
            None => wrong.push(format!("{key} is missing")),
            Some(Some(value)) if *value == seed => {}
            Some(Some(value)) if same_kind(value) => edited.push(format!("{key} = {value}")),
            Some(value) => wrong.push(format!("{key} is {}", value.clone().unwrap_or_default())),
        }
    }
    let told = match edited.as_slice() {
        [] => format!("{} with their seeded values", known::SETTINGS.len()),
        edited => format!("{}, edited: {}", known::SETTINGS.len(), edited.join(", ")),
    };
    Ok(Answer::of(&wrong, told))
}
