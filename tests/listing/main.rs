//! The listing helper's schema, through the command line: its slices up and down, with rows, in adopted databases and
//! with concurrent changes; what stays, what is backed up, what `verify` checks and what it reports of a changed
//! schema; and the rules of BOMs.
//!
//! `runbook` compares lists, counts and orders with the values in `runbook/`, which are the runbook's own.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

mod backup;
mod bom;
mod down;
mod drift;
mod runbook;
mod up;
mod verify;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use std::process::{Output, Stdio};
use tempfile::TempDir;
use tokio::process::Command;
use vinops::testing::{TestDb, empty_database};

/// A database, a home folder for backups, and the binary with only these in its environment.
struct ListingFixture {
    db: TestDb,
    home: TempDir,
}

impl ListingFixture {
    /// Creates a fixture without any schema.
    async fn new() -> ListingFixture {
        ListingFixture { db: empty_database().await, home: tempfile::tempdir().unwrap() }
    }

    /// Creates a fixture with all six slices.
    async fn migrated() -> ListingFixture {
        let fixture = ListingFixture::new().await;
        fixture.migrate(&["up"]).await;
        fixture
    }

    fn pool(&self) -> &PgPool {
        &self.db.db.pool
    }

    fn vinops(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vinops"));
        command
            .args(arguments)
            .env_clear()
            .env("LISTING_DATABASE_URL", &self.db.url)
            .env("HOME", self.home.path())
            .env("PATH", path_variable())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run_vinops(&self, arguments: &[&str]) -> ProcessOutput {
        process_output(self.vinops(arguments).output().await.unwrap())
    }

    /// Runs `vinops migrate --set listing …`, which must succeed. Returns its output.
    async fn migrate(&self, arguments: &[&str]) -> String {
        let said = self.run_vinops(&[&["migrate", "--set", "listing"], arguments].concat()).await;
        assert_eq!(said.code, Some(0), "{arguments:?}: {}{}", said.out, said.err);
        said.out
    }

    /// Runs `vinops migrate --set listing …`, which must fail with this exit code. Returns its error.
    async fn assert_migrate_fails(&self, arguments: &[&str], code: i32) -> String {
        let said = self.run_vinops(&[&["migrate", "--set", "listing"], arguments].concat()).await;
        assert_eq!(said.code, Some(code), "{arguments:?}: {}{}", said.out, said.err);
        said.err
    }

    async fn verify(&self) -> Value {
        serde_json::from_str(&self.run_vinops(&["verify", "listing", "--json"]).await.out).unwrap()
    }

    /// Runs statements in a transaction with the schema in the search path.
    async fn run_statements(&self, statements: &str) {
        let statements = format!("begin; set local search_path = listing; {statements}; commit");
        sqlx::raw_sql(AssertSqlSafe(statements.clone()))
            .execute(self.pool())
            .await
            .unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    async fn query_text(&self, query: &str) -> String {
        let mut tx = self.pool().begin().await.unwrap();
        sqlx::raw_sql("set local search_path = listing").execute(&mut *tx).await.unwrap();
        let text: Option<String> =
            sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut *tx).await.unwrap();
        text.unwrap_or_default()
    }

    async fn query_number(&self, query: &str) -> i64 {
        self.query_text(&format!("select ({query})::text")).await.parse().unwrap()
    }

    /// Returns the number of base tables of the schema, as the runbook counts them.
    async fn count_tables(&self) -> i64 {
        self.query_number(
            "select count(*) from information_schema.tables
             where table_schema = current_schema() and table_type = 'BASE TABLE'",
        )
        .await
    }

    /// Returns the definitions of all objects of the schema, as PostgreSQL formats them.
    async fn describe_schema(&self) -> String {
        self.query_text(
            "select string_agg(line, chr(10) order by line) from (
               select format('%s.%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                 case when a.attnotnull then 'not null' end, pg_get_expr(d.adbin, d.adrelid)) as line
               from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
               where c.relnamespace = 'listing'::regnamespace and c.relkind in ('r', 'v')
               union all
               select format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) from pg_constraint
               where connamespace = 'listing'::regnamespace
               union all
               select indexdef from pg_indexes where schemaname = 'listing'
               union all
               select format('%s %s', enumtypid::regtype, string_agg(enumlabel, ',' order by enumsortorder))
               from pg_enum group by enumtypid
               union all
               select format('setting %s %s', key, value) from settings
             ) as lines",
        )
        .await
    }
}

/// The output of a process.
struct ProcessOutput {
    code: Option<i32>,
    out: String,
    err: String,
}

fn process_output(output: Output) -> ProcessOutput {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    ProcessOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Returns the search path of programs, such as `pg_dump`.
#[expect(clippy::disallowed_methods, reason = "the machine's own, for programs that the binary starts")]
fn path_variable() -> String {
    std::env::var("PATH").unwrap()
}

/// Two listings in the columns of the base. One has every value that a rollback could lose.
const SAMPLE_LISTINGS: &str = r#"
    insert into listings (sku, asin, title, price, quantity, category, status)
    values ('SKU-1', 'B000000001', 'a kettle', 24.00, 7, 'Home & Kitchen with a name longer than one hundred characters, for the base has room for 255 of them', 'inactive for the time being'),
           ('SKU-2', null, 'a pan', 9.99, 0, null, 'active')"#;

/// Selects the values of [`GOODS`], whatever the columns are called.
const VISIBLE_LISTINGS: &str = "
    select string_agg(concat_ws('|', l.id, j ->> 'asin', title,
      coalesce(j ->> 'price_inc_vat', j ->> 'price'), coalesce(j ->> 'available_quantity', j ->> 'quantity'),
      coalesce(j ->> 'seller_sku', j ->> 'sku'), category, j ->> 'status'), chr(10) order by l.id)
    from listings as l, to_jsonb(l) as j";
