use super::*;
use clap::CommandFactory;

/// Returns the pages of the short and the long help of all commands.
fn help_pages() -> Vec<(String, String)> {
    let mut root = Cli::command();
    root.build();
    let mut commands = vec![root];
    let mut pages = Vec::new();
    while let Some(mut command) = commands.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        pages.push((name.clone(), command.render_help().to_string()));
        pages.push((name, command.render_long_help().to_string()));
        commands.extend(command.get_subcommands().cloned());
    }
    pages
}

#[test]
fn every_help_page_fits_80_columns() {
    for (name, page) in help_pages() {
        for line in page.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
    }
}

#[test]
fn old_spellings_are_accepted_and_hidden() {
    let file = "28e3e071-5c48-4047-87d2-88a4db94e5cf";
    for arguments in [
        &["embedded", "--", "true"][..],
        &["with-postgres", "true"],
        &["windows", "--embedded"],
        &["windows", "--private-cluster"],
        &["windows", "--missing"],
        &["windows", "--gaps"],
        &["raw", "export", file],
        &["file", "export", file],
        &["fetch"],
        &["fetch", "--now"],
        &["worker", "--at-most", "fetch=1"],
        &["jobs", "requeue", "4711", "--why", "a test"],
        &["migrate", "verify"],
        &["migrate", "--set", "listing", "down", "--literal", "--destructive"],
    ] {
        let parsed = Cli::try_parse_from([&["vinops"], arguments].concat());
        assert!(parsed.is_ok(), "{arguments:?}: {}", parsed.unwrap_err());
    }
    let hidden = ["--embedded", "--now", "--at-most", "--why", "--literal", "  embedded "];
    for (name, page) in help_pages() {
        let shown: Vec<&str> = hidden.into_iter().filter(|old| page.contains(old)).collect();
        assert!(shown.is_empty(), "{name} shows {shown:?}:\n{page}");
    }
}
