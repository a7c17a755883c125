//! Completions and manual pages, generated from the command line and tested with each installed shell.

use std::process::{Command, Output};

fn run_vinops(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_vinops")).args(arguments).env_clear().output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn each_shell_is_told_of_each_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(run_vinops(&["completions", shell]).stdout).unwrap();
        for word in ["worker", "doctor", "reset-breaker", "concurrency", "completions"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn bash_completes_a_command_and_its_subcommand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vinops");
    std::fs::write(&path, run_vinops(&["completions", "bash"]).stdout).unwrap();
    for (words, wanted) in [("vinops schedu", "scheduler"), ("vinops source res", "reset-breaker")] {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
            _vinops vinops \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
            path.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.trim(), wanted, "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let page = String::from_utf8(run_vinops(&["man"]).stdout).unwrap();
    assert!(page.contains(".TH vinops 1") && page.contains("vinops\\-worker(1)"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    run_vinops(&["man", "--out", folder.path().to_str().unwrap()]);
    for name in ["vinops", "vinops-worker", "vinops-source-reset-breaker", "vinops-migrate-up"] {
        let page = std::fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
}
