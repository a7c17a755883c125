//! A migrated database for each test.
use crate::db::Db;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A database of one test.
pub struct TestDb {
    /// Connected to it.
    pub db: Db,
    /// Its URL.
    pub url: String,
}

/// A fresh migrated database.
pub async fn database() -> TestDb {
    let admin = "postgres://postgres@127.0.0.1:5544/postgres";
    let name = format!("t_{}", uuid::Uuid::new_v4().simple());
    let mut c = PgConnection::connect(admin).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut c).await.unwrap();
    let url = format!("postgres://postgres@127.0.0.1:5544/{name}");
    let db = Db::connect(&url, None, 10).await.unwrap();
    let mut files: Vec<_> =
        std::fs::read_dir("migrations").unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
    files.sort();
    for f in files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "sql") && !f.to_string_lossy().contains("/0005_"))
    {
        sqlx::raw_sql(AssertSqlSafe(std::fs::read_to_string(f).unwrap())).execute(&db.pool).await.unwrap();
    }
    TestDb { db, url }
}
