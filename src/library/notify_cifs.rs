//! Change notification of the kernel's SMB client (CIFS_IOC_NOTIFY, Linux 5.6 and later): a hint that shortens the wait
//! for the next poll, where the server keeps it.
//!
//! Must never be the truth: what changes between two calls is lost, and not every server tells of every change. (Samba
//! tells of files made and deleted by programs on the server, such as the journal of every transaction of Calibre's, not
//! of bytes they write, nor of directories below; measured with Linux 6.1 and Samba 4.17.) The call blocks until
//! something changes, and its wait ends on a fatal signal only: it has a thread of its own that nobody ever waits for,
//! and an open handle of the mount's root as long as it lasts.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

/// Between two calls: a server that answers at once every time must not keep a core busy.
const PAUSE: Duration = Duration::from_millis(100);

/// `struct smb3_notify` of the kernel's `fs/smb/client/cifs_ioctl.h`.
#[repr(C, packed)]
struct Request {
    completion_filter: u32,
    watch_tree: u8,
}

/// [MS-SMB2] 2.2.35: FILE_NAME, DIR_NAME, SIZE, LAST_WRITE.
const CHANGES: u32 = 0x1 | 0x2 | 0x8 | 0x10;

/// CIFS_IOC_NOTIFY: `_IOW(0xCF, 9, struct smb3_notify)`, five bytes from here to the kernel.
const NOTIFY: nix::libc::Ioctl = 0x4005_CF09;

/// What the thread has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// Something changed below the root.
    Change,
    /// The hint is off; `for_good` where asking again would give the same answer.
    Ended { reason: String, for_good: bool },
}

/// While this is held, notices come. The thread itself ends at its next one.
#[derive(Debug)]
pub(super) struct Subscription {
    wanted: Arc<AtomicBool>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

/// Starts the thread. Whether the file system offers the call at all shows at once, by [`Notice::Ended`].
pub(super) fn subscribe(
    root: &Path,
    whole_tree: bool,
    notice: impl Fn(Notice) + Send + 'static,
) -> io::Result<Subscription> {
    let directory = File::open(root)?;
    let request = Request { completion_filter: CHANGES, watch_tree: u8::from(whole_tree) };
    let wanted = Arc::new(AtomicBool::new(true));
    let subscription = Subscription { wanted: Arc::clone(&wanted) };
    thread::Builder::new().name("cifs-notify".to_owned()).spawn(move || {
        let wait = || {
            // SAFETY: the descriptor is open as long as `directory` is, which this closure owns. The request is five
            // initialised bytes that outlive the call, laid out as the kernel's packed structure; the kernel copies
            // them in and writes nothing back (_IOW). Another file system does not know the number: it answers ENOTTY.
            Errno::result(unsafe { nix::libc::ioctl(directory.as_raw_fd(), NOTIFY, &raw const request) }).map(drop)
        };
        listen(wait, &wanted, PAUSE, notice);
    })?;
    Ok(subscription)
}

/// Waits and tells, until nobody wants it any more or a call fails.
fn listen(mut wait: impl FnMut() -> nix::Result<()>, wanted: &AtomicBool, pause: Duration, notice: impl Fn(Notice)) {
    while wanted.load(Ordering::Relaxed) {
        let outcome = wait();
        // What the wait was for may be another mount by now.
        if !wanted.load(Ordering::Relaxed) {
            return;
        }
        match outcome {
            Ok(()) => notice(Notice::Change),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                let for_good = matches!(errno, Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL);
                let reason = if for_good {
                    format!("the mount offers no change notification ({errno})")
                } else {
                    format!("the change notification of the mount failed ({errno})")
                };
                return notice(Notice::Ended { reason, for_good });
            }
        }
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// A kernel that answers what it is sent, in a thread of its own.
    fn kernel(pause: Duration) -> (mpsc::Sender<nix::Result<()>>, Arc<AtomicBool>, mpsc::Receiver<Notice>) {
        let (answer, answers) = mpsc::channel();
        let (told, notices) = mpsc::channel();
        let wanted = Arc::new(AtomicBool::new(true));
        let still_wanted = Arc::clone(&wanted);
        thread::spawn(move || {
            let wait = || answers.recv().unwrap_or(Err(Errno::EBADF));
            listen(wait, &still_wanted, pause, move |notice| drop(told.send(notice)));
        });
        (answer, wanted, notices)
    }

    #[test]
    fn the_request_is_the_kernels() {
        // asm-generic/ioctl.h: write (1) in the top two bits, the size in fourteen, the type and the number in eight each.
        assert_eq!(1 << 30 | (size_of::<Request>() as nix::libc::Ioctl) << 16 | 0xCF << 8 | 9, NOTIFY);
    }

    #[test]
    fn changes_are_told_until_a_call_fails() {
        let (answer, _wanted, notices) = kernel(Duration::ZERO);
        for outcome in [Ok(()), Err(Errno::EINTR), Ok(()), Err(Errno::EHOSTDOWN), Ok(())] {
            let _ = answer.send(outcome);
        }
        let told: Vec<Notice> = notices.iter().collect();
        let [Notice::Change, Notice::Change, Notice::Ended { reason, for_good: false }] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert!(reason.contains("EHOSTDOWN"), "{reason}");
    }

    #[test]
    fn nothing_is_told_of_a_mount_that_nobody_asks_about_any_more() {
        let (answer, wanted, notices) = kernel(Duration::ZERO);
        answer.send(Ok(())).unwrap();
        assert_eq!(notices.recv().unwrap(), Notice::Change);
        wanted.store(false, Ordering::Relaxed);
        // The thread was waiting already.
        let _ = answer.send(Err(Errno::EIO));
        assert_eq!(notices.recv(), Err(mpsc::RecvError), "the thread has ended, silently");
    }

    #[test]
    fn a_server_that_always_answers_at_once_keeps_no_core_busy() {
        let (answer, wanted, notices) = kernel(Duration::from_millis(20));
        for _ in 0..1000 {
            answer.send(Ok(())).unwrap();
        }
        let started = Instant::now();
        thread::sleep(Duration::from_millis(200));
        wanted.store(false, Ordering::Relaxed);
        let told = notices.iter().count() as u128;
        assert!(told <= started.elapsed().as_millis() / 20 + 1, "{told} in {:?}", started.elapsed());
    }

    #[test]
    fn a_file_system_without_the_call_says_so_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (told, notices) = mpsc::channel();
        let subscription = subscribe(folder.path(), false, move |notice| drop(told.send(notice))).unwrap();
        let notice = notices.recv_timeout(Duration::from_secs(5)).unwrap();
        let Notice::Ended { reason, for_good: true } = &notice else { panic!("{notice:?}") };
        println!("{reason}");
        drop(subscription);
        assert!(subscribe(&folder.path().join("absent"), false, |_| {}).is_err());
    }
}
