//! The privileges in the catalogue are those of SECURITY.md, and functions with their owner's rights bound their
//! arguments.

use crate::{insert_file, run_sql};
use sqlx::Row;
use std::collections::BTreeSet;
use vinops::db::rights::{GrantedRight, compare_rights, documented_rights, granted_rights};
use vinops::testing::migrated_database;

/// Creates tables that exist only while a load is in progress.
const OPEN_PARTITIONS: &str =
    "select raw.open_month('2026-12-01T00:00Z'); select staging.open_day('2026-12-01T00:00Z')";

fn missing_from<T: Ord + Clone>(left: &BTreeSet<T>, right: &BTreeSet<T>) -> Vec<T> {
    left.difference(right).cloned().collect()
}

#[tokio::test]
async fn every_object_and_every_privilege_is_listed_in_the_security_document_and_no_other() {
    let t = migrated_database().await;
    insert_file(&t).await;
    run_sql(&t.db.pool, OPEN_PARTITIONS).await.unwrap();
    let (listed, found) = (documented_rights(), granted_rights(&t.db.pool).await.unwrap());
    assert_eq!(missing_from(&found.objects, &listed.objects), Vec::<String>::new(), "objects without a line");
    assert_eq!(missing_from(&listed.objects, &found.objects), Vec::<String>::new(), "lines without an object");
    assert_eq!(missing_from(&found.rights, &listed.rights), [], "granted and not listed");
    assert_eq!(missing_from(&listed.rights, &found.rights), [], "listed and not granted");
}

#[tokio::test]
async fn an_object_or_a_privilege_that_is_not_listed_is_seen() {
    let t = migrated_database().await;
    run_sql(
        &t.db.pool,
        "create table raw.stray ();
        create view audit.stray as select 1 as one;
        create function fleet.stray() returns void language sql security definer as 'select';
        grant truncate on public.lots to etl_rw;
        grant update (status) on public.lots to app_ro;
        grant select on raw.suspended to public;
        grant create on schema raw to etl_rw",
    )
    .await
    .unwrap();
    let (listed, found) = (documented_rights(), granted_rights(&t.db.pool).await.unwrap());
    assert_eq!(missing_from(&found.objects, &listed.objects), ["audit.stray", "fleet.stray()", "raw.stray"]);
    let words = |right: &GrantedRight| format!("{}: {} on {}", right.role, right.privilege, right.object);
    let more: BTreeSet<String> = missing_from(&found.rights, &listed.rights).iter().map(words).collect();
    for seen in [
        "etl_rw: truncate on public.lots",
        "app_ro: update (status) on public.lots",
        "public: select on raw.suspended",
        "etl_rw: create on schema raw",
        "public: execute on fleet.stray()",
    ] {
        assert!(more.contains(seen), "{seen}: {more:?}");
    }
}

#[tokio::test]
async fn functions_with_their_owners_rights_are_bounded_argument_by_argument() {
    let t = migrated_database().await;
    let listed = documented_rights();
    let functions = sqlx::query(
        "select
          format('%s.%s(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) as signature,
          coalesce((p.proargnames)[1:p.pronargs], '{}') as arguments,
          p.pronargs::int as count,
          pg_get_userbyid(p.proowner)::text as owner,
          'search_path=pg_catalog, pg_temp' = any (coalesce(p.proconfig, '{}')) as pinned,
          array(
            select format('%s.%s', s.nspname, c.relname)
            from pg_class c
            join pg_namespace s on s.oid = c.relnamespace
            where c.relkind in ('r', 'p', 'v')
              and s.nspname in ('public', 'raw', 'staging', 'audit', 'fleet', 'taxonomies')
              and p.prosrc ~ format('\\m%s\\.%s\\M', s.nspname, c.relname)
          ) as tables
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where p.prosecdef
          and n.nspname not in ('pg_catalog', 'information_schema')",
    )
    .fetch_all(&t.db.pool)
    .await
    .unwrap();
    assert_eq!(functions.len(), listed.functions.len());
    for found in functions {
        let signature: String = found.get("signature");
        let line = listed.functions.iter().find(|line| line.signature == signature);
        let line = line.unwrap_or_else(|| panic!("{signature} has no line"));
        assert_eq!(found.get::<String, _>("owner"), "vinops_admin", "{signature}");
        assert!(found.get::<bool, _>("pinned"), "{signature} has no fixed search_path");
        let arguments: Vec<String> = found.get("arguments");
        assert_eq!(arguments.len(), usize::try_from(found.get::<i32, _>("count")).unwrap(), "{signature}");
        for argument in arguments {
            let named = line.bounds.contains(&format!("`{argument}`"));
            assert!(named, "{signature}: what bounds {argument}? {}", line.bounds);
        }
        // the function must not trust tables that a caller may write
        let callers: BTreeSet<&str> =
            listed.rights.iter().filter(|r| r.object == signature).map(|r| &*r.role).collect();
        let writable = |table: &String| {
            listed.rights.iter().any(|r| {
                r.object == *table
                    && callers.contains(&*r.role)
                    && (r.privilege.starts_with("insert") || r.privilege.starts_with("update"))
            })
        };
        let tables: BTreeSet<String> = found.get::<Vec<String>, _>("tables").into_iter().filter(writable).collect();
        let named: BTreeSet<String> = line.tables.iter().filter(|it| !it.is_empty()).cloned().collect();
        assert_eq!(tables, named, "{signature}: tables that its callers may write");
    }
}

#[tokio::test]
async fn a_workers_login_is_compared_with_the_list() {
    let t = migrated_database().await;
    let url = crate::privileges::create_login(&t, "etl_rw").await;
    let worker = sqlx::PgPool::connect(&url).await.unwrap();
    let found = compare_rights(&worker, "etl_rw").await.unwrap();
    assert_eq!((found.more, found.less), (vec![], vec![]));
    run_sql(&t.db.pool, "grant insert on raw.suspended to etl_rw; revoke insert on raw.rows from etl_rw")
        .await
        .unwrap();
    let found = compare_rights(&worker, "etl_rw").await.unwrap();
    assert_eq!(found.more, ["insert on raw.suspended"]);
    assert_eq!(found.less, ["insert on raw.rows"]);
}
