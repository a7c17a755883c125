//! `vinops completions` and `vinops man`: what shells and `man` know of the command line, made from the command line itself.

use super::{Cli, Failure};
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `vinops completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  vinops completions bash > /etc/bash_completion.d/vinops
  vinops completions zsh > \"${fpath[1]}/_vinops\"
  vinops completions fish > ~/.config/fish/completions/vinops.fish")]
pub struct Args {
    /// For which shell
    shell: Shell,
}

/// Arguments of `vinops man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  vinops man | man -l -
  vinops man --out /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write a page for each command into this folder, instead of the first one to standard output
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Prints the shell's completions.
pub fn run(args: &Args) -> Result<(), Failure> {
    // in memory first: a reader that leaves early is no panic
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vinops", &mut script);
    Ok(std::io::stdout().write_all(&script).context("print the completions")?)
}

/// Prints the manual's page, or writes all of them.
pub fn man(args: &ManArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    // names of pages hold the names of the commands above: vinops-jobs-requeue
    command.build();
    let Some(folder) = &args.out else {
        return Ok(std::io::stdout().write_all(&page(&command)?).context("print the manual's page")?);
    };
    std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let path = folder.join(format!("{name}.1"));
        std::fs::write(&path, page(&command)?).with_context(|| format!("write {}", path.display()))?;
        let below = command.get_subcommands().filter(|it| it.get_name() != "help");
        commands.extend(below.cloned());
    }
    Ok(())
}

fn page(command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).context("write the manual's page")?;
    Ok(page)
}
