//! The migrations that this binary carries: the files of `migrations/`, compiled in, so that the program and the
//! schema it needs are one thing.
//!
//! A file's head is read, so it is data: the lines before the first empty one are comments, the first its own name,
//! then `purpose`, `depends`, `rollback` (`yes`, or `destructive` where going back loses rows), `superseded` (the
//! number that took its place: this one is never applied), `needs` (things that must be there whatever the registry says)
//! and `creates`.

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// One numbered change of the schema.
#[derive(Debug)]
pub struct Migration {
    /// "0008"; of the listing helper's, whose numbers are the runbook's, "003".
    pub id: &'static str,
    /// "etl_schemas".
    pub name: &'static str,
    /// The SQL that makes the change.
    pub up: &'static str,
    /// The SQL that takes it back; none for one that is never applied.
    pub down: Option<&'static str>,
}

/// Migrations of one domain, in the order of their numbers.
#[derive(Debug)]
pub struct Set {
    /// "auction".
    pub name: &'static str,
    /// In order.
    pub migrations: &'static [Migration],
}

/// What a migration's head says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// One line.
    pub purpose: String,
    /// The number that must be applied before; none for the first.
    pub depends: Option<String>,
    /// Going back loses rows.
    pub destructive: bool,
    /// The number that replaces this one, which is then never applied.
    pub superseded: Option<String>,
    /// Things that must be there, as the ledger of `vinops.added` names them: `table listings`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Names of what appears.
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
            down: Some(include_str!(concat!(
                "../../migrations/",
                $folder,
                "/rollback/",
                $id,
                "_rollback.sql"
            ))),
        }
    };
}

/// The auction domain and the fleet. `tests/migrations.rs` holds this list against the folder.
pub const AUCTION: Set = Set {
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
        migration!("0018", "fleet_steering"),
        migration!("0019", "fleet_sources"),
        migration!("0020", "fleet_figures"),
        migration!("0021", "vocabulary"),
        migration!("0023", "lot_history"),
        migration!("0024", "store_catalogue"),
    ],
};

/// The listing helper, in the runbook's slices; `listing.rs` tells how they are applied.
pub const LISTING: Set = Set {
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

/// Every set there is.
pub const SETS: &[&Set] = &[&AUCTION, &LISTING];

impl Set {
    /// The set called `name`.
    pub fn named(name: &str) -> anyhow::Result<&'static Set> {
        let known = || SETS.iter().map(|set| set.name).collect::<Vec<_>>().join(", ");
        SETS.iter()
            .find(|set| set.name == name)
            .copied()
            .with_context(|| format!("no set {name}; there is {}", known()))
    }

    /// Those that get applied, in order.
    pub fn active(&self) -> impl Iterator<Item = &'static Migration> + use<> {
        self.migrations.iter().filter(|migration| migration.down.is_some())
    }

    /// Changes whenever any applied file does.
    pub fn fingerprint(&self) -> String {
        let all = self.active().fold(Sha256::new(), |all, migration| all.chain_update(migration.up));
        HEXLOWER.encode(&all.finalize())
    }
}

impl Migration {
    /// "0008_etl_schemas".
    pub fn stem(&self) -> String {
        format!("{}_{}", self.id, self.name)
    }

    /// SHA-256 of the file, hexadecimal: what says that an applied file was changed afterwards.
    pub fn sha256(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.up))
    }

    /// What the file's head says.
    pub fn head(&self) -> anyhow::Result<Head> {
        let stem = self.stem();
        let mut lines = self.up.lines().map_while(|line| line.strip_prefix("--")).map(str::trim);
        if lines.next() != Some(stem.as_str()) {
            bail!("{stem}.sql does not begin with `-- {stem}`");
        }
        let mut head = Head {
            purpose: String::new(),
            depends: None,
            destructive: false,
            superseded: None,
            needs: Vec::new(),
            creates: Vec::new(),
        };
        for line in lines {
            let (key, value) =
                line.split_once(": ").with_context(|| format!("{stem}.sql: what is `-- {line}`?"))?;
            let value = value.trim().to_owned();
            match key {
                "purpose" => head.purpose = value,
                "depends" => head.depends = (value != "none").then_some(value),
                "superseded" => head.superseded = Some(value),
                "needs" => head.needs = value.split(", ").map(str::to_owned).collect(),
                "creates" => head.creates = value.split(", ").map(str::to_owned).collect(),
                "rollback" if value == "yes" || value == "destructive" => {
                    head.destructive = value == "destructive"
                }
                _ => bail!("{stem}.sql: what is `-- {line}`?"),
            }
        }
        if head.purpose.is_empty() {
            bail!("{stem}.sql has no `-- purpose: …`");
        }
        if head.superseded.is_some() != self.down.is_none() {
            bail!("{stem}.sql is superseded or has a rollback file, not both");
        }
        Ok(head)
    }
}
