//! The migrations of this program: the files of `migrations/`, compiled in, so that a program always contains the
//! schema it needs.
//!
//! The header of a migration file is parsed. The header consists of the comment lines before the first empty line. The
//! first line is the file's own name. The other lines are `purpose`, `depends`, `rollback` (`yes`, or `destructive` if
//! the rollback deletes data), `superseded` (the id of the migration that replaced this one, which is then never
//! applied), `needs` (objects that must exist whatever the registry contains) and `creates`.

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// One numbered change of the schema.
#[derive(Debug)]
pub struct Migration {
    /// The number, such as "0008". The listing helper has the numbers of its runbook, such as "003".
    pub id: &'static str,
    /// The name after the number, such as "etl_schemas".
    pub name: &'static str,
    /// The SQL that applies the migration.
    pub up: &'static str,
    /// The SQL of the rollback. None for a migration that is superseded and so never applied.
    pub down: Option<&'static str>,
}

/// The migrations of one domain.
#[derive(Debug)]
pub struct MigrationSet {
    /// The name of the domain, such as "auction".
    pub name: &'static str,
    /// The migrations in the order of their numbers.
    pub migrations: &'static [Migration],
}

/// The parsed header of a migration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MigrationHead {
    /// The purpose of the migration, in one line.
    pub purpose: String,
    /// The id of the migration that must be applied before. None for the first.
    pub depends: Option<String>,
    /// True if the rollback deletes data.
    pub destructive: bool,
    /// The id of the migration that replaces this one, which is then never applied.
    pub superseded: Option<String>,
    /// Objects that must exist before, by the names that the ledger `vinops.added` uses, such as `table listings`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Names of the objects that the migration creates.
    pub creates: Vec<String>,
}

macro_rules! migration {
    ($id:literal, $name:literal) => {
        Migration {
            down: Some(include_str!(concat!("../../migrations/rollback/", $id, "_rollback.sql"))),
            ..migration!($id, $name, superseded)
        }
    };
    ($id:literal, $name:literal, superseded) => {
        Migration {
            id: $id,
            name: $name,
            up: include_str!(concat!("../../migrations/", $id, "_", $name, ".sql")),
            down: None,
        }
    };
    (in $folder:literal, $id:literal, $name:literal) => {
        Migration {
            id: $id,
            name: $name,
            up: include_str!(concat!("../../migrations/", $folder, "/", $id, "_", $name, ".sql")),
            down: Some(include_str!(concat!("../../migrations/", $folder, "/rollback/", $id, "_rollback.sql"))),
        }
    };
}

/// The migrations of the auction domain and of the queue. `tests/migrations.rs` compares this list with the folder.
pub const AUCTION_SET: MigrationSet = MigrationSet {
    name: "auction",
    migrations: &[
        migration!("0001", "init"),
        migration!("0002", "constraints"),
        migration!("0003", "indexes"),
        migration!("0004", "policy_flags"),
        migration!("0005", "vin_normalized_fix", superseded),
        migration!("0006", "vin_normalized_ck_uidx"),
        migration!("0007", "canon_domains_columns"),
        migration!("0008", "etl_schemas"),
        migration!("0009", "lots_external_id"),
        migration!("0010", "audit_views"),
        migration!("0011", "taxonomies"),
        migration!("0012", "vehicles_upsert_proc"),
        migration!("0013", "lots_upsert_proc"),
        migration!("0014", "completion_views"),
        migration!("0015", "fleet_queue"),
        migration!("0016", "fleet_windows"),
        migration!("0017", "roles"),
        migration!("0018", "fleet_operations"),
        migration!("0019", "fleet_sources"),
        migration!("0020", "fleet_metrics"),
        migration!("0021", "taxonomy_seeds"),
        migration!("0023", "lot_history"),
        migration!("0024", "store_catalogue"),
    ],
};

/// The migrations of the listing helper, one for each slice of its runbook. The module `listing` applies them.
pub const LISTING_SET: MigrationSet = MigrationSet {
    name: "listing",
    migrations: &[
        migration!(in "listing", "000", "base"),
        migration!(in "listing", "001", "slice_a_schema"),
        migration!(in "listing", "002", "slice_b_schema"),
        migration!(in "listing", "003", "slice_c_schema"),
        migration!(in "listing", "004", "slice_d_schema"),
        migration!(in "listing", "005", "worker"),
    ],
};

/// All migration sets.
pub const ALL_SETS: &[&MigrationSet] = &[&AUCTION_SET, &LISTING_SET];

impl MigrationSet {
    /// Returns the set of this name.
    ///
    /// # Errors
    /// Returns an error that lists the known sets if there is no such set.
    pub fn by_name(name: &str) -> anyhow::Result<&'static MigrationSet> {
        let known = || ALL_SETS.iter().map(|set| set.name).collect::<Vec<_>>().join(", ");
        ALL_SETS
            .iter()
            .find(|set| set.name == name)
            .copied()
            .with_context(|| format!("unknown migration set \"{name}\"; expected one of {}", known()))
    }

    /// Returns the migrations that are applied, in order, without superseded ones.
    pub fn active(&self) -> impl Iterator<Item = &'static Migration> + use<> {
        self.migrations.iter().filter(|migration| migration.down.is_some())
    }

    /// Returns a hash that changes whenever an applied file changes.
    pub fn fingerprint(&self) -> String {
        let all = self.active().fold(Sha256::new(), |all, migration| all.chain_update(migration.up));
        HEXLOWER.encode(&all.finalize())
    }
}

impl Migration {
    /// Returns the file name without its extension, such as "0008_etl_schemas".
    pub fn stem(&self) -> String {
        format!("{}_{}", self.id, self.name)
    }

    /// Returns the SHA-256 of the file in hex, by which a later change of an applied file is detected.
    pub fn sha256(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.up))
    }

    /// Parses the header of the file.
    ///
    /// # Errors
    /// Returns an error if a line of the header is missing or not known.
    pub fn parse_head(&self) -> anyhow::Result<MigrationHead> {
        let stem = self.stem();
        let mut lines = self.up.lines().map_while(|line| line.strip_prefix("--")).map(str::trim);
        if lines.next() != Some(stem.as_str()) {
            bail!("migration file {stem}.sql does not begin with `-- {stem}`");
        }
        let mut head = MigrationHead {
            purpose: String::new(),
            depends: None,
            destructive: false,
            superseded: None,
            needs: Vec::new(),
            creates: Vec::new(),
        };
        for line in lines {
            let (key, value) =
                line.split_once(": ").with_context(|| format!("unknown header line `-- {line}` in {stem}.sql"))?;
            let value = value.trim().to_owned();
            match key {
                "purpose" => head.purpose = value,
                "depends" => head.depends = (value != "none").then_some(value),
                "superseded" => head.superseded = Some(value),
                "needs" => head.needs = value.split(", ").map(str::to_owned).collect(),
                "creates" => head.creates = value.split(", ").map(str::to_owned).collect(),
                "rollback" if value == "yes" || value == "destructive" => head.destructive = value == "destructive",
                _ => bail!("unknown header line `-- {line}` in migration file {stem}.sql"),
            }
        }
        if head.purpose.is_empty() {
            bail!("migration file {stem}.sql has no header line `-- purpose: …`");
        }
        if head.superseded.is_some() != self.down.is_none() {
            bail!("migration file {stem}.sql needs either a header line `-- superseded: …` or a rollback file");
        }
        Ok(head)
    }
}
