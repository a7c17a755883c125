//! A disk of a few megabytes for the store, which a test can fill: a tmpfs, if this process may mount one.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The prefix of every such mount's name, followed by the process id.
const MOUNT_PREFIX: &str = "vinops-chaos-";

pub struct LimitedDisk {
    folder: PathBuf,
}

impl LimitedDisk {
    /// Mounts a disk on `folder`. Returns the reason if that is not allowed.
    pub fn mount(folder: &Path, megabytes: u32) -> Result<LimitedDisk, String> {
        remove_stale_mounts();
        std::fs::create_dir_all(folder).unwrap();
        let (size, name) = (format!("size={megabytes}m"), format!("{MOUNT_PREFIX}{}", std::process::id()));
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, &name]).arg(folder).output();
        match mount {
            Ok(said) if said.status.success() => Ok(LimitedDisk { folder: folder.to_owned() }),
            Ok(said) => Err(String::from_utf8_lossy(&said.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn fill_file(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Fills the disk to the last byte.
    pub fn fill(&self) {
        let mut ballast = std::fs::File::create(self.fill_file()).unwrap();
        while ballast.write(&[0; 4096]).is_ok() {}
    }

    pub fn free_space(&self) {
        std::fs::remove_file(self.fill_file()).ok();
    }
}

impl Drop for LimitedDisk {
    fn drop(&mut self) {
        // lazy: a worker that is dying may still have a file open there
        Command::new("umount").arg("-l").arg(&self.folder).status().ok();
    }
}

/// Unmounts the disks of killed tests.
fn remove_stale_mounts() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for (name, rest) in mounts.lines().filter_map(|line| line.split_once(' ')) {
        let owner = name.strip_prefix(MOUNT_PREFIX).and_then(|pid| pid.parse().ok()).map(Pid::from_raw);
        if owner.is_some_and(|pid| kill(pid, None) == Err(Errno::ESRCH)) {
            Command::new("umount").arg("-l").args(rest.split(' ').next()).status().ok();
        }
    }
}
