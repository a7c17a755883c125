//! Rights: what each role may do, as SECURITY.md lists it, and what the database grants.
//!
//! SECURITY.md is the one list. `vinops doctor` compares a login with its column `etl_rw`, and a test compares all of it with
//! the catalogue, in both directions.

use anyhow::Context;
use sqlx::PgPool;
use std::collections::BTreeSet;

const SECURITY: &str = include_str!("../../SECURITY.md");

/// One privilege of one role on one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantedRight {
    /// `public.lots`, `schema raw`, `raw.suspend(regclass)`; `partitions` for all of them.
    pub object: String,
    /// `etl_rw`; `public` for everybody.
    pub role: String,
    /// `select`, `update (has_keys_code)`, `execute`.
    pub privilege: String,
}

/// A function that runs with its owner's rights, as SECURITY.md lists it.
#[derive(Clone, Debug)]
pub struct DefinerFunction {
    /// `raw.suspend(regclass)`.
    pub signature: String,
    /// The tables that it reads or changes and its callers may write.
    pub tables: BTreeSet<String>,
    /// What bounds its arguments.
    pub bounds: String,
}

/// The content of SECURITY.md.
#[derive(Clone, Debug, Default)]
pub struct DocumentedRights {
    /// Each object that has a line.
    pub objects: BTreeSet<String>,
    /// Each privilege that is listed.
    pub rights: BTreeSet<GrantedRight>,
    /// Each function that has a line.
    pub functions: Vec<DefinerFunction>,
}

/// What the catalogue has.
#[derive(Clone, Debug, Default)]
pub struct CatalogueRights {
    /// Each object of ours.
    pub objects: BTreeSet<String>,
    /// Each privilege that is granted to a role other than the owner.
    pub rights: BTreeSet<GrantedRight>,
    /// Those of them that the connected login has.
    pub held: BTreeSet<GrantedRight>,
}

/// What the connected login may do more and less than a role.
#[derive(Clone, Debug, Default)]
pub struct RightsDifference {
    /// Privileges beyond the role's, such as `update on public.config`.
    pub more: Vec<String>,
    /// Privileges of the role that are missing.
    pub less: Vec<String>,
}

/// Returns the lists of SECURITY.md.
pub fn documented() -> DocumentedRights {
    let mut found = DocumentedRights::default();
    let mut roles: Vec<&str> = Vec::new();
    for line in SECURITY.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some((first, rest)) = cells.split_first() else { continue };
        match (first.strip_prefix('`').and_then(|name| name.strip_suffix('`')), rest) {
            (Some(signature), [may_execute, tables, bounds]) if roles.is_empty() => {
                for role in may_execute.split(", ").filter(|role| !role.is_empty()) {
                    found.rights.insert(right(signature, role, "execute"));
                }
                found.functions.push(DefinerFunction {
                    signature: signature.to_owned(),
                    tables: tables.split(", ").map(|table| table.trim_matches('`').to_owned()).collect(),
                    bounds: (*bounds).to_owned(),
                });
                found.objects.insert(signature.to_owned());
            }
            (Some(object), cells) => {
                found.objects.insert(object.to_owned());
                for (role, cell) in roles.iter().zip(cells) {
                    found
                        .rights
                        .extend(privileges(cell).iter().map(|privilege| right(object, role, privilege)));
                }
            }
            (None, heads) if *first == "object" => roles = heads.to_vec(),
            (None, _) if *first == "function" => roles.clear(),
            (None, _) => {}
        }
    }
    found
}

/// `select, update (a, b)` → `select`, `update (a)`, `update (b)`.
fn privileges(cell: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut columns_of = None;
    for part in cell.split(", ").filter(|part| !part.is_empty()) {
        let (privilege, column) = match (columns_of, part.split_once(" (")) {
            (Some(privilege), _) => (privilege, Some(part)),
            (None, Some((privilege, column))) => (privilege, Some(column)),
            (None, None) => (part, None),
        };
        let Some(column) = column else {
            found.push(privilege.to_owned());
            continue;
        };
        found.push(format!("{privilege} ({})", column.trim_end_matches(')')));
        columns_of = (!column.ends_with(')')).then_some(privilege);
    }
    found
}

fn right(object: &str, role: &str, privilege: &str) -> GrantedRight {
    GrantedRight { object: object.to_owned(), role: role.to_owned(), privilege: privilege.to_owned() }
}

/// Reads what the database grants.
pub async fn granted(pool: &PgPool) -> anyhow::Result<CatalogueRights> {
    let rows =
        sqlx::query_file!("src/db/rights.sql").fetch_all(pool).await.context("read what is granted")?;
    let mut found = CatalogueRights::default();
    for row in rows {
        if let (Some(role), Some(privilege)) = (&row.grantee, &row.privilege) {
            let right = right(&row.object, role, privilege);
            if row.held {
                found.held.insert(right.clone());
            }
            found.rights.insert(right);
        }
        found.objects.insert(row.object);
    }
    Ok(found)
}

/// Compares what the connected login may do with what SECURITY.md lists for `role` and for everybody. Tables of others that
/// happen to be in the same schemas count where they can be written.
pub async fn difference(pool: &PgPool, role: &str) -> anyhow::Result<RightsDifference> {
    let (documented, granted) = (documented(), granted(pool).await?);
    let pair = |right: &GrantedRight| (right.object.clone(), right.privilege.clone());
    let listed: BTreeSet<_> = documented
        .rights
        .iter()
        .filter(|right| right.role == role || right.role == "public")
        .filter(|right| granted.objects.contains(&right.object))
        .map(pair)
        .collect();
    let held: BTreeSet<_> = granted
        .held
        .iter()
        .filter(|right| documented.objects.contains(&right.object) || right.privilege != "select")
        .map(pair)
        .collect();
    let words = |(object, privilege): &(String, String)| format!("{privilege} on {object}");
    Ok(RightsDifference {
        more: held.difference(&listed).map(words).collect(),
        less: listed.difference(&held).map(words).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_privilege_are_read_one_by_one() {
        assert_eq!(
            privileges("select, update (a, b), delete"),
            ["select", "update (a)", "update (b)", "delete"]
        );
        assert_eq!(privileges(""), Vec::<String>::new());
    }

    #[test]
    fn the_lists_of_the_document_are_read_whole() {
        let found = documented();
        assert!(found.objects.len() > 70, "{}", found.objects.len());
        assert!(found.rights.contains(&right("public.lots", "vinops_ops", "update (has_keys_code)")));
        assert!(found.rights.contains(&right("raw.suspend(regclass)", "etl_rw", "execute")));
        assert!(found.objects.contains("raw.suspended"));
        assert!(!found.rights.iter().any(|right| right.object == "raw.suspended"));
    }
}
