//! Checks the taxonomy files line by line: complete, unambiguous, and covering the values seen in the feed.

use super::*;
use std::collections::{HashMap, HashSet};

/// Number of rows with each code: 181,249 lots of 2026, with damage counted in both of its columns.
#[derive(Debug, Deserialize)]
struct CodeCount {
    domain: TaxonomyDomain,
    code: String,
    rows: u64,
}

fn observed_counts() -> Vec<CodeCount> {
    read_rows(include_str!("counts.csv"))
}

fn find_code(domain: TaxonomyDomain, raw: &str) -> Option<&'static str> {
    AliasIndex::built_in().find_code(domain, raw)
}

fn is_a_code(code: &str) -> bool {
    !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[test]
fn every_code_is_written_once_and_has_both_labels_and_a_group() {
    for domain in TaxonomyDomain::ALL {
        let codes: HashSet<&str> = entries(domain).iter().map(|e| e.code.as_str()).collect();
        assert_eq!(codes.len(), entries(domain).len(), "{domain:?} has a code twice");
        for entry in entries(domain) {
            assert!(is_a_code(&entry.code), "{domain:?} {}", entry.code);
            for text in [&entry.en, &entry.ru, &entry.category] {
                assert!(!text.trim().is_empty() && text.trim() == text, "{domain:?} {entry:?}");
            }
            assert!(entry.en.is_ascii(), "{entry:?}");
        }
        assert!(entries(domain).is_sorted_by_key(|e| e.sort_order), "{domain:?}");
        let labels: HashSet<&str> = entries(domain).iter().map(|e| e.en.as_str()).collect();
        assert_eq!(labels.len(), codes.len(), "two codes of {domain:?} have one English label");
    }
    assert_eq!(TaxonomyDomain::ALL.map(|d| entries(d).len()), [26, 215, 6, 3, 4, 25, 35, 11, 9, 4, 15, 3, 3, 4, 3]);
}

#[test]
fn a_domain_is_found_by_the_name_of_its_table() {
    for domain in TaxonomyDomain::ALL {
        assert_eq!(TaxonomyDomain::from_name(domain.name()), Some(domain));
    }
    assert_eq!(TaxonomyDomain::from_name("goats"), None);
}

#[test]
fn no_spelling_leads_nowhere_and_none_leads_to_two_codes() {
    let mut met: HashMap<(TaxonomyDomain, String), &str> = HashMap::new();
    for TaxonomyAlias { domain, raw, code: to } in aliases() {
        assert!(entries(*domain).iter().any(|e| e.code == *to), "{domain:?} {raw} leads to {to}, which is not there");
        let key = fold_text(raw);
        assert!((1..=MAX_ALIAS_BYTES).contains(&key.len()), "{raw}");
        assert_eq!(met.insert((*domain, key), to), None, "{domain:?} {raw} is there twice");
        assert_eq!(find_code(*domain, raw), Some(to.as_str()), "{raw}");
    }
    for domain in TaxonomyDomain::ALL {
        for entry in entries(domain) {
            assert!(aliases().iter().any(|a| a.domain == domain && a.code == entry.code), "nothing leads to {entry:?}");
        }
    }
}

#[test]
fn russian_covers_ninety_nine_rows_of_a_hundred_in_every_domain() {
    let seen = observed_counts();
    for domain in TaxonomyDomain::ALL.into_iter().filter(|domain| *domain != TaxonomyDomain::Statuses) {
        let (mut all, mut russian) = (0, 0);
        for count in seen.iter().filter(|count| count.domain == domain) {
            let entry = entries(domain).iter().find(|entry| entry.code == count.code);
            let entry = entry.unwrap_or_else(|| panic!("{count:?} has no entry"));
            all += count.rows;
            let cyrillic = entry.ru.chars().any(|c| ('\u{400}'..='\u{4ff}').contains(&c));
            // A title label for an unknown meaning carries no information.
            let is_russian = cyrillic && !entry.ru.contains("значение неизвестно");
            russian += if is_russian { count.rows } else { 0 };
        }
        assert!(all > 4000, "{domain:?} was seen {all} times only");
        assert!(russian * 100 >= all * 99, "{domain:?}: {russian} of {all}");
    }
}

#[test]
fn of_the_words_of_the_feed_none_is_unknown_in_any_domain() {
    for CodeCount { domain, code: counted, rows } in observed_counts() {
        let known = aliases()
            .iter()
            .any(|a| a.domain == domain && a.code == counted && find_code(domain, &a.raw) == Some(&counted));
        assert!(known, "{domain:?}: nothing leads to {counted}, which {rows} rows have");
    }
}

#[test]
fn each_domains_aliases_read_every_generation_of_the_feed() {
    for (domain, aliases, to) in [
        (TaxonomyDomain::DamageTypes, &["WATER/FLOOD", "Water / Flood", "waterflood"][..], "damage_flood"),
        (TaxonomyDomain::TitleTypes, &["SC", "sc", " SC "], "title_sc"),
        (TaxonomyDomain::Statuses, &["PENDING_RESULT", "Pending result"], "pending_result"),
        (TaxonomyDomain::SaleTypes, &["On Minimum Bid", "ON MINIMUM BID"], "sale_minimum_bid"),
        (TaxonomyDomain::OdometerBrands, &["A", "a"], "odometer_actual"),
        (TaxonomyDomain::Colors, &["TWO TONE", "Two-Tone"], "color_two_tone"),
        (TaxonomyDomain::BodyStyles, &["4DR SPOR", "4DR SPORT UTILITY"], "body_suv"),
        (TaxonomyDomain::FuelTypes, &["FLEXIBLE FUEL", "FLEXIBLE"], "fuel_flex"),
        (TaxonomyDomain::DriveTypes, &["Front-wheel Drive", "FRONT WHEEL DRIVE"], "drive_fwd"),
        (TaxonomyDomain::TransmissionTypes, &["AUTOMATIC", "Automatic"], "transmission_automatic"),
        (TaxonomyDomain::VehicleTypes, &["V", "v"], "vehicle_automobile"),
        (TaxonomyDomain::RunsDrives, &["Run & Drive Verified", "Run Drive verified"], "run_and_drive"),
        (TaxonomyDomain::HasKeys, &["YES", "Yes"], "keys_yes"),
        (TaxonomyDomain::LotConditions, &["D", "d"], "cond_d"),
        (TaxonomyDomain::SaleLights, &["RED LIGHT", "Red Light"], "light_red"),
    ] {
        for raw in aliases {
            assert_eq!(find_code(domain, raw), Some(to), "{domain:?} {raw:?}");
        }
    }
}

#[test]
fn a_states_label_belongs_to_a_title_and_stands_once() {
    let mut met = HashSet::new();
    for label in title_labels() {
        assert!(entries(TaxonomyDomain::TitleTypes).iter().any(|e| e.code == label.code), "{label:?}");
        assert!(label.state.len() == 2 && label.state.bytes().all(|b| b.is_ascii_uppercase()), "{label:?}");
        assert!(!label.en.is_empty() && !label.ru.is_empty(), "{label:?}");
        assert!(met.insert((&label.code, &label.state)), "{label:?} is there twice");
    }
}

#[test]
fn what_the_older_lists_had_wrong_is_right_here() {
    let title = |raw: &str| {
        let code = find_code(TaxonomyDomain::TitleTypes, raw).unwrap();
        let entry = entries(TaxonomyDomain::TitleTypes).iter().find(|e| e.code == code).unwrap();
        (entry.en.as_str(), entry.category.as_str())
    };
    assert_eq!(title("WT"), ("Watercraft title", "clean_or_branded"));
    assert_eq!(title("PR"), ("Clean title", "clean_or_branded"));
    assert_eq!(title("CL"), ("Title with lemon law history (CL)", "clean_or_branded"));
    assert_eq!(title("RB"), ("Salvage title, rebuildable", "rebuildable"));
    assert_eq!(title("CT"), ("Certificate of title", "clean_or_branded"));
    assert_eq!(title("CD"), ("Certificate of destruction", "non_repairable"));
    assert_eq!(title("BP"), ("Bill of sale, parts only", "non_repairable"));
    assert_eq!(title("BN").1, "unknown");
    for (domain, raw) in [
        (TaxonomyDomain::DamageTypes, "BURN"),
        (TaxonomyDomain::DamageTypes, "HAIL"),
        (TaxonomyDomain::DamageTypes, "STRIPPED"),
        (TaxonomyDomain::DamageTypes, "BIOHAZARD/CHEMICAL"),
        (TaxonomyDomain::DamageTypes, "DAMAGE HISTORY"),
        (TaxonomyDomain::DamageTypes, "REPLACED VIN"),
        (TaxonomyDomain::DamageTypes, "REJECTED REPAIR"),
        (TaxonomyDomain::OdometerBrands, "X"),
        (TaxonomyDomain::DriveTypes, "Front-wheel Drive"),
        (TaxonomyDomain::DriveTypes, "FRONT WHEEL DRIVE"),
    ] {
        assert!(find_code(domain, raw).is_some(), "{domain:?} {raw}");
    }
    for (domain, raw) in [
        (TaxonomyDomain::OdometerBrands, "T"),
        (TaxonomyDomain::Statuses, "On Hold"),
        (TaxonomyDomain::DriveTypes, "FWD"),
        (TaxonomyDomain::TransmissionTypes, "CVT"),
        (TaxonomyDomain::FuelTypes, "PLUG-IN HYBRID"),
    ] {
        assert_eq!(find_code(domain, raw), None, "{domain:?} {raw} never occurs");
    }
    let gas = entries(TaxonomyDomain::FuelTypes).iter().find(|e| e.code == "fuel_cng").unwrap();
    assert!(gas.ru.contains("КПГ") && !gas.ru.contains("СПГ"), "СПГ is liquefied gas: {}", gas.ru);
    let title_words =
        entries(TaxonomyDomain::TitleTypes).iter().map(|e| &e.ru).chain(title_labels().iter().map(|l| &l.ru));
    assert!(title_words.into_iter().all(|ru| !ru.contains("Титул под залогом")));
}

#[test]
fn a_spelling_is_known_without_regard_to_case_blanks_and_punctuation() {
    assert_eq!(find_code(TaxonomyDomain::DamageTypes, " burn-Engine"), Some("damage_burn_engine"));
    assert_eq!(find_code(TaxonomyDomain::DamageTypes, "WATER/FLOOD"), Some("damage_flood"));
    assert_eq!(find_code(TaxonomyDomain::SaleTypes, "ON MINIMUM BID"), Some("sale_minimum_bid"));
    assert_eq!(find_code(TaxonomyDomain::Statuses, "PENDING_RESULT"), Some("pending_result"));
    assert_eq!(find_code(TaxonomyDomain::FuelTypes, "FLEXIBLE"), find_code(TaxonomyDomain::FuelTypes, "Flexible Fuel"));
    assert_eq!(find_code(TaxonomyDomain::BodyStyles, "OFF-ROAD VEHICLE - SNOWMOBILE"), Some("body_snowmobile"));
    assert_eq!(find_code(TaxonomyDomain::LotConditions, "D"), Some("cond_d"));
}

#[test]
fn an_unknown_spelling_has_no_code_however_long_it_is() {
    assert_eq!(find_code(TaxonomyDomain::DamageTypes, "EATEN BY GOAT"), None);
    assert_eq!(find_code(TaxonomyDomain::DamageTypes, ""), None);
    assert_eq!(find_code(TaxonomyDomain::SaleTypes, &"Я".repeat(1000)), None);
    assert_eq!(find_code(TaxonomyDomain::SaleTypes, &"a".repeat(1000)), None);
    assert_eq!(find_code(TaxonomyDomain::SaleTypes, "FRONT END"), None);
}

#[test]
fn other_spellings_than_the_files_may_be_read_by() {
    let taught = AliasIndex::from_rows([(TaxonomyDomain::DamageTypes, "Съеден козой", "damage_side")]);
    assert_eq!(taught.find_code(TaxonomyDomain::DamageTypes, "СЪЕДЕН-КОЗОЙ"), Some("damage_side"));
    assert_eq!(taught.find_code(TaxonomyDomain::DamageTypes, "FRONT END"), None);
}
