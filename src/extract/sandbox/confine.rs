//! A child gives up all it does not need: memory, files, network, system calls. Must run before the first byte of a
//! book is looked at, in a process with one thread.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use super::protocol::{Confinement, Setup};

/// Descriptors a child may have: its three, the book, and what a library may open in between.
const MAX_OPEN_FILES: u64 = 16;
/// Bytes a child may write to a file: its own last words.
const MAX_WRITTEN_BYTES: u64 = 1 << 20;

/// Gives up everything; says what this kernel could not take.
pub fn confine(setup: &Setup) -> io::Result<Confinement> {
    close_inherited()?;
    // The kernel's out-of-memory killer takes this process first. Where /proc is read-only, it may choose.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let _ = prctl::set_name(c"alexandria-read");
    // No one of the same user may look into this process, and it leaves no core file.
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    for (resource, limit) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, MAX_WRITTEN_BYTES),
        (Resource::RLIMIT_NOFILE, MAX_OPEN_FILES),
        // All writable private memory; unlike RLIMIT_AS it does not count the program's own file.
        (Resource::RLIMIT_DATA, setup.memory_bytes),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    Ok(Confinement { landlock: forbid_files(), seccomp: forbid_system_calls() })
}

/// Whatever the parent's libraries left open across exec.
fn close_inherited() -> io::Result<()> {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // One of them was the directory's own, closed by now.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

/// No file may be opened, made or run, no port bound or reached, no process outside signalled.
fn forbid_files() -> bool {
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V6)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    // An older kernel takes a part; what it leaves (ports, signals) the system-call filter forbids.
    restricted.is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

/// All other system calls fail with EPERM, which libraries take for "not here".
fn forbid_system_calls() -> bool {
    let Ok(architecture) = std::env::consts::ARCH.try_into() else { return false };
    let rules: BTreeMap<_, _> = ALLOWED.iter().map(|call| (*call, vec![])).collect();
    let filter =
        SeccompFilter::new(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, architecture);
    let program: Result<BpfProgram, _> = filter.and_then(TryInto::try_into);
    program.is_ok_and(|program| apply_filter(&program).is_ok())
}

/// Reading what is open, memory, time, and the end. No `open`, `socket`, `clone`, `execve`, `kill`.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    // The CPU limit is set anew for each book.
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendto,
    libc::SYS_sigaltstack,
    // std asks for a file's size so.
    libc::SYS_statx,
    // abort() signals itself.
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];
