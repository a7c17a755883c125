//! A disk of a few megabytes for the store, that can be filled: a tmpfs, where this process may mount one.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every such mount is called so, and by its process.
const NAME: &str = "vinops-chaos-";

pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounted on `folder`; where that is not allowed, why.
    pub fn mount(folder: &Path, megabytes: u32) -> Result<Disk, String> {
        sweep();
        std::fs::create_dir_all(folder).unwrap();
        let (size, name) = (format!("size={megabytes}m"), format!("{NAME}{}", std::process::id()));
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, &name]).arg(folder).output();
        match mount {
            Ok(said) if said.status.success() => Ok(Disk { folder: folder.to_owned() }),
            Ok(said) => Err(String::from_utf8_lossy(&said.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Not a byte more fits.
    pub fn fill(&self) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        while ballast.write(&[0; 4096]).is_ok() {}
    }

    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).ok();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // lazily: a worker that dies in this instant may still have a file open there
        Command::new("umount").arg("-l").arg(&self.folder).status().ok();
    }
}

/// Unmounts what a killed test left.
fn sweep() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for (name, rest) in mounts.lines().filter_map(|line| line.split_once(' ')) {
        let owner = name.strip_prefix(NAME).and_then(|pid| pid.parse().ok()).map(Pid::from_raw);
        if owner.is_some_and(|pid| kill(pid, None) == Err(Errno::ESRCH)) {
            Command::new("umount").arg("-l").args(rest.split(' ').next()).status().ok();
        }
    }
}
