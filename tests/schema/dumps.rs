//! A dumped and restored database passes `verify`, on the server of this run. `.ci/full dumps` runs this on each
//! available PostgreSQL.

use crate::{INSERT_CAR, SELECT_CAR, failed_checks, query_text, run_sql};
use std::path::PathBuf;
use std::process::{Command, Output};
use vinops::db::verify::verify_schema;
use vinops::testing::{empty_database, migrated_database};

/// Returns `pg_dump` or `pg_restore`: of `VINOPS_TEST_PG_CLIENTS`, else of the server's folder, else of the machine.
#[expect(clippy::disallowed_methods, reason = "a variable of the tests, which the program does not read")]
fn client_program(program: &str) -> PathBuf {
    let folders = ["VINOPS_TEST_PG_CLIENTS", "VINOPS_PG_BINDIR"].into_iter().filter_map(std::env::var_os);
    let mut programs = folders.map(|folder| PathBuf::from(folder).join(program));
    programs.find(|program| program.is_file()).unwrap_or_else(|| program.into())
}

fn output_text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).trim().to_owned()
}

#[tokio::test]
async fn a_database_that_was_dumped_and_restored_passes_verify() {
    let Ok(version) = Command::new(client_program("pg_dump")).arg("--version").output() else {
        eprintln!("no pg_dump is here: a dump was not tried");
        return;
    };
    let source = migrated_database().await;
    let server = query_text(&source.db.pool, "select current_setting('server_version')").await;
    run_sql(&source.db.pool, INSERT_CAR).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vinops.dump");
    let dumped = Command::new(client_program("pg_dump"))
        .args(["--format=custom", "--dbname", &source.url, "--file"])
        .arg(&file)
        .output()
        .unwrap();
    if output_text(&dumped).contains("server version mismatch") {
        eprintln!("{} is older than the server, {server}: a dump was not tried", output_text(&version));
        return;
    }
    assert!(dumped.status.success(), "{}", output_text(&dumped));

    let restored = empty_database().await;
    let restore =
        Command::new(client_program("pg_restore")).args(["--dbname", &restored.url]).arg(&file).output().unwrap();
    // a program of 17 or newer sets a parameter that an older server does not have, and continues
    let unknown_setting = "unrecognized configuration parameter \"transaction_timeout\"";
    let output = output_text(&restore);
    let errors: Vec<&str> =
        output.lines().filter(|line| line.contains("error:") && !line.contains(unknown_setting)).collect();
    assert_eq!(errors, Vec::<&str>::new(), "{output}");
    assert_eq!(failed_checks(&restored.db.pool).await, []);
    assert_eq!(query_text(&restored.db.pool, SELECT_CAR).await, query_text(&source.db.pool, SELECT_CAR).await);
    let changed = "select count(*)::text from pg_constraint where conname = 'vehicles_vin_format_ck'
        and pg_get_constraintdef(oid) not like 'CHECK ((((%'";
    assert_eq!(query_text(&restored.db.pool, changed).await, "1", "the dump changed how the check is printed");
    let checks = verify_schema(&restored.db.pool).await.unwrap().len();
    println!("PostgreSQL {server}, {}: {checks} checks passed", output_text(&version));
}
