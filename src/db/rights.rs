//! Rights: the privileges of each role as SECURITY.md documents them, and the privileges that the database grants.
//!
//! SECURITY.md is the only list. `vinops doctor` compares a login with the column `etl_rw` of the list. A test compares
//! the whole list with the catalog, in both directions.

use anyhow::Context;
use sqlx::PgPool;
use std::collections::BTreeSet;

const SECURITY_MD: &str = include_str!("../../SECURITY.md");

/// One privilege of one role on one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantedRight {
    /// The object: `public.lots`, `schema raw`, `raw.suspend(regclass)`, or `partitions` for all partitions.
    pub object: String,
    /// The role, such as `etl_rw`. `public` means every role.
    pub role: String,
    /// The privilege, such as `select`, `update (has_keys_code)` or `execute`.
    pub privilege: String,
}

/// A `security definer` function, as SECURITY.md documents it.
#[derive(Clone, Debug)]
pub struct DefinerFunction {
    /// The signature, such as `raw.suspend(regclass)`.
    pub signature: String,
    /// Tables that the function reads or changes and that its callers may write.
    pub tables: BTreeSet<String>,
    /// The limits on the arguments, as text.
    pub bounds: String,
}

/// The content of SECURITY.md.
#[derive(Clone, Debug, Default)]
pub struct DocumentedRights {
    /// Each object of the tables in the document.
    pub objects: BTreeSet<String>,
    /// Each documented privilege.
    pub rights: BTreeSet<GrantedRight>,
    /// Each documented `security definer` function.
    pub functions: Vec<DefinerFunction>,
}

/// The privileges that the catalog contains.
#[derive(Clone, Debug, Default)]
pub struct DatabaseRights {
    /// Each object of vinops.
    pub objects: BTreeSet<String>,
    /// Each privilege that is granted to a role other than the owner.
    pub rights: BTreeSet<GrantedRight>,
    /// The privileges of `rights` that the connected login has.
    pub held: BTreeSet<GrantedRight>,
}

/// The difference between the privileges of the connected login and those of a role.
#[derive(Clone, Debug, Default)]
pub struct RightsDifference {
    /// Privileges that the login has and the role has not, such as `update on public.config`.
    pub more: Vec<String>,
    /// Privileges that the role has and the login has not.
    pub less: Vec<String>,
}

/// Parses the tables of SECURITY.md. Returns an empty content if the document has none.
pub fn documented_rights() -> DocumentedRights {
    let mut found = DocumentedRights::default();
    let mut roles: Vec<&str> = Vec::new();
    for line in SECURITY_MD.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some((first, rest)) = cells.split_first() else { continue };
        match (first.strip_prefix('`').and_then(|name| name.strip_suffix('`')), rest) {
            (Some(signature), [may_execute, tables, bounds]) if roles.is_empty() => {
                for role in may_execute.split(", ").filter(|role| !role.is_empty()) {
                    found.rights.insert(granted_right(signature, role, "execute"));
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
                        .extend(split_privileges(cell).iter().map(|privilege| granted_right(object, role, privilege)));
                }
            }
            (None, heads) if *first == "object" => roles = heads.to_vec(),
            (None, _) if *first == "function" => roles.clear(),
            (None, _) => {}
        }
    }
    found
}

/// Splits a cell into privileges: `select, update (a, b)` → `select`, `update (a)`, `update (b)`.
fn split_privileges(cell: &str) -> Vec<String> {
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

fn granted_right(object: &str, role: &str, privilege: &str) -> GrantedRight {
    GrantedRight { object: object.to_owned(), role: role.to_owned(), privilege: privilege.to_owned() }
}

/// Returns the privileges that the database grants.
pub async fn granted_rights(pool: &PgPool) -> anyhow::Result<DatabaseRights> {
    let rows =
        sqlx::query_file!("src/db/rights.sql").fetch_all(pool).await.context("could not read the granted rights")?;
    let mut found = DatabaseRights::default();
    for row in rows {
        if let (Some(role), Some(privilege)) = (&row.grantee, &row.privilege) {
            let right = granted_right(&row.object, role, privilege);
            if row.held {
                found.held.insert(right.clone());
            }
            found.rights.insert(right);
        }
        found.objects.insert(row.object);
    }
    Ok(found)
}

/// Compares the rights of the connected login with the documented rights of `role` and of `public`.
///
/// Tables of other programs in the same schemas count as a difference if the login may write them.
///
/// # Errors
/// Returns an error if the catalog cannot be read.
pub async fn compare_rights(pool: &PgPool, role: &str) -> anyhow::Result<RightsDifference> {
    let (documented, granted) = (documented_rights(), granted_rights(pool).await?);
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
        assert_eq!(split_privileges("select, update (a, b), delete"), ["select", "update (a)", "update (b)", "delete"]);
        assert_eq!(split_privileges(""), Vec::<String>::new());
    }

    #[test]
    fn the_lists_of_the_document_are_read_whole() {
        let found = documented_rights();
        assert!(found.objects.len() > 70, "{}", found.objects.len());
        assert!(found.rights.contains(&granted_right("public.lots", "vinops_ops", "update (has_keys_code)")));
        assert!(found.rights.contains(&granted_right("raw.suspend(regclass)", "etl_rw", "execute")));
        assert!(found.objects.contains("raw.suspended"));
        assert!(!found.rights.iter().any(|right| right.object == "raw.suspended"));
    }
}
