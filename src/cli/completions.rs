//! `vinops completions` and `vinops man`: shell completions and manual pages, generated from the command line.

use super::{Cli, CommandError};
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `vinops completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vinops completions bash > /etc/bash_completion.d/vinops
  vinops completions zsh > \"${fpath[1]}/_vinops\"
  vinops completions fish > ~/.config/fish/completions/vinops.fish")]
pub struct CompletionsArgs {
    /// Shell to print completions for
    shell: Shell,
}

/// Arguments of `vinops man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vinops man | man -l -
  vinops man --out /usr/local/share/man/man1")]
pub struct ManPageArgs {
    /// Write a page for each command into this folder, instead of printing the first page
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Prints the completions of a shell.
pub fn print_completions(args: &CompletionsArgs) -> Result<(), CommandError> {
    // The script is generated in memory, since the generator panics on a broken pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vinops", &mut script);
    Ok(std::io::stdout().write_all(&script).context("could not print the completions")?)
}

/// Prints the first manual page, or writes all pages into a folder.
pub fn print_man_pages(args: &ManPageArgs) -> Result<(), CommandError> {
    let mut command = Cli::command();
    // The name of a page contains the names of its parent commands: vinops-jobs-requeue.
    command.build();
    let Some(folder) = &args.out else {
        return Ok(std::io::stdout().write_all(&render_page(&command)?).context("could not print the manual page")?);
    };
    std::fs::create_dir_all(folder).with_context(|| format!("could not create the folder {}", folder.display()))?;
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let path = folder.join(format!("{name}.1"));
        std::fs::write(&path, render_page(&command)?).with_context(|| format!("could not write {}", path.display()))?;
        let below = command.get_subcommands().filter(|it| it.get_name() != "help");
        commands.extend(below.cloned());
    }
    Ok(())
}

fn render_page(command: &clap::Command) -> Result<Vec<u8>, CommandError> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).context("could not render the manual page")?;
    Ok(page)
}
