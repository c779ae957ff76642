//! Real mounts for the tests: what they need of the machine, and file systems that go when the test ends, however it
//! ends. Never touches a mount that it did not make.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set by `tests/run.sh` to `required` where it has found everything that tests of mounts need: there a test that skips
/// itself is a failure.
const EXPECTED: &str = "ALEXANDRIA_TEST_MOUNTS";

/// Whether the machine has what a test needs; says what it lacks where it does not. `devices` are paths in `/dev`.
pub fn can_test(programs: &[&str], devices: &[&str]) -> bool {
    let Some(lacking) = lacking(programs, devices) else { return true };
    assert!(std::env::var(EXPECTED).as_deref() != Ok("required"), "{EXPECTED} is set, but {lacking}");
    eprintln!("SKIPPED: {lacking}");
    false
}

fn lacking(programs: &[&str], devices: &[&str]) -> Option<String> {
    // The directory of a process belongs to its effective user.
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Some("mounts need root".to_owned());
    }
    let namespace = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    if !namespace.is_ok_and(|status| status.success()) {
        return Some("this machine (a container?) lets nobody mount".to_owned());
    }
    if let Some(device) = devices.iter().find(|device| fs::File::open(device).is_err()) {
        return Some(format!("{device} cannot be opened"));
    }
    let program = programs.iter().find(|program| find(program).is_none())?;
    Some(format!("the program {program} is missing (see tests/run.sh for its package)"))
}

/// A program of the PATH, or of the directories that an unprivileged PATH leaves out.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Whether something is mounted right there, by the kernel's list: a stat of the place could hang.
pub fn is_mounted(place: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == place))
}

/// Takes a mount away at once, whoever uses it and whether or not it answers.
pub fn detach(place: &Path) {
    // Of what may be mounted there several times, all.
    while is_mounted(place) {
        let done = Command::new("umount").arg("--lazy").arg(place).status();
        if !done.is_ok_and(|status| status.success()) {
            break;
        }
    }
}

/// A mounted file system. Unmounted when dropped.
pub struct Mount {
    place: PathBuf,
}

impl Mount {
    /// `arguments` of mount(8) but for the place, which is made where it is absent.
    pub fn new(arguments: &[&str], place: &Path) -> Self {
        fs::create_dir_all(place).unwrap();
        mount(arguments, place);
        Mount { place: place.to_owned() }
    }

    /// A file system in memory of that size.
    pub fn tmpfs(mebibytes: u64, place: &Path) -> Self {
        Self::new(&["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=755"), "tmpfs"], place)
    }

    /// Changes its options.
    pub fn remount(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}")], &self.place);
    }

    /// Must not be busy.
    pub fn unmount(self) {
        let output = Command::new("umount").arg(&self.place).output().unwrap();
        assert!(output.status.success(), "umount: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        detach(&self.place);
    }
}

fn mount(arguments: &[&str], place: &Path) {
    let output = Command::new("mount").args(arguments).arg(place).output().unwrap();
    assert!(output.status.success(), "mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image of an ext4 file system with the contents of a directory.
pub fn ext4_image(image: &Path, mebibytes: u64, contents: &Path) {
    fs::File::create(image).unwrap().set_len(mebibytes << 20).unwrap();
    let made = Command::new(find("mkfs.ext4").expect("mkfs.ext4 is installed"))
        .args(["-q", "-F", "-m", "0", "-d"])
        .arg(contents)
        .arg(image)
        .output()
        .unwrap();
    assert!(made.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr));
}
