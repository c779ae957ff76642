//! A plain folder of books, without a catalogue: a walk, and books recognised again after a rename.
//!
//! Any directory that cannot be read ends the walk as an error: a smaller shelf must never be reported.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::files::{FileStat, in_order, not_in_order, why_none};
use super::{Heartbeat, LibraryError, LookRequest, Seen};
use crate::clock::now_us;
use crate::domain::{Book, BookFile, KnownBook, Metadata, PassedOver, Sighting, Source, UUID_NAMESPACE};

/// Directories that systems and NAS boxes make, often unreadable, never holding books.
const SYSTEM_DIRECTORIES: [&str; 5] = ["lost+found", "System Volume Information", "$RECYCLE.BIN", "#recycle", "@eaDir"];

/// The identity of a folder that has none in the state: one path, one library.
pub fn folder_uuid_of_path(path: &Path) -> Uuid {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    Uuid::new_v5(&UUID_NAMESPACE, path.to_string_lossy().as_bytes())
}

/// One file as a book, for files named by hand.
pub fn single_file(path: &Path, library_uuid: Uuid, formats: &[String]) -> Result<Book, LibraryError> {
    let path = fs::canonicalize(path).map_err(|source| LibraryError::from_io(path, source))?;
    let stat = fs::metadata(&path).map_err(|source| LibraryError::from_io(&path, source))?;
    let format = path.extension().map(|extension| extension.to_string_lossy().to_uppercase()).unwrap_or_default();
    if !stat.is_file() || !formats.iter().any(|known| known.eq_ignore_ascii_case(&format)) {
        return Err(LibraryError::UnknownFormat { path, format });
    }
    let name = path.to_string_lossy().into_owned();
    let candidate = Candidate { path, format, stat: FileStat::from_metadata(&stat) };
    Ok(candidate.into_book(Uuid::new_v5(&library_uuid, name.as_bytes()), library_uuid, &name, None))
}

/// Walks the folder, and only then says what is in it. `known` lets renamed and moved files keep their books.
pub(super) fn look<E: From<LibraryError>>(
    request: &LookRequest,
    library_uuid: Uuid,
    known: &[KnownBook],
    mut take: impl FnMut(Seen) -> Result<(), E>,
) -> Result<(), E> {
    let mut groups = Groups::default();
    walk(request.path, request.heartbeat, |path, stat| groups.add(request, path, stat))?;

    let mut identities = Identities::new(request.path, known, &groups);
    let now_us = now_us();
    for (_, files) in groups.by_stem {
        take(sighting(request, library_uuid, &mut identities, &files, now_us))?;
    }
    Ok(())
}

/// The book that the files of one stem are.
fn sighting(
    request: &LookRequest,
    library_uuid: Uuid,
    identities: &mut Identities,
    files: &[Candidate],
    now_us: i64,
) -> Seen {
    let formats = || files.iter().map(|file| file.format.as_str());
    let chosen = in_order(request.formats, formats());
    let candidate = &files[chosen.first().copied().unwrap_or(0)];
    let passed_over = |uuid: Uuid, book_id: String, title: String, reason: String| {
        let formats = formats().map(str::to_owned).collect();
        Sighting::PassedOver(PassedOver { uuid, book_id, title, formats, reason })
    };
    let Some(relative) = relative(request.path, &candidate.path) else {
        let uuid = Uuid::new_v5(&library_uuid, candidate.path.as_os_str().as_encoded_bytes());
        let title = candidate.path.to_string_lossy().into_owned();
        let reason = "its name is not UTF-8: rename it".to_owned();
        return Seen { sighting: passed_over(uuid, String::new(), title, reason), settled: true };
    };
    let known = identities.find(files, candidate);
    let uuid = known.map_or_else(|| identities.new_uuid(library_uuid, &relative), |known| known.uuid);
    let pass_over = |reason: String| {
        let book_id = format!("file {}", &Source::from_relative_path(&relative).id()[..8]);
        passed_over(uuid, book_id, title_of(&candidate.path), reason)
    };
    if chosen.is_empty() {
        let reason = why_none(request.why_unread, &not_in_order(request.formats, formats()));
        return Seen { sighting: pass_over(reason), settled: true };
    }
    if candidate.stat.is_fresh(now_us) && !known.is_some_and(|known| candidate.is_file_of(known)) {
        let sighting = match known {
            Some(known) => Sighting::AsKnown(known.uuid),
            None => pass_over(format!("its file {} may still be being written", candidate.path.display())),
        };
        return Seen { sighting, settled: false };
    }
    let added_us = known.map(|known| known.added_us);
    let book = Book {
        others: chosen[1..].iter().map(|at| files[*at].clone().into_file()).collect(),
        unread: not_in_order(request.formats, formats()),
        ..candidate.clone().into_book(uuid, library_uuid, &relative, added_us)
    };
    Seen { sighting: Sighting::Book(book), settled: true }
}

/// One file found by the walk.
#[derive(Debug, Clone)]
struct Candidate {
    path: PathBuf,
    /// Upper case.
    format: String,
    stat: FileStat,
}

impl Candidate {
    fn into_book(self, uuid: Uuid, library_uuid: Uuid, relative: &str, added_us: Option<i64>) -> Book {
        Book {
            uuid,
            library_uuid,
            source: Source::from_relative_path(relative),
            metadata: Metadata { title: title_of(&self.path), ..Metadata::default() },
            added_us: added_us.unwrap_or(self.stat.arrived_us),
            file: self.into_file(),
            others: Vec::new(),
            unread: Vec::new(),
        }
    }

    fn into_file(self) -> BookFile {
        BookFile {
            format: self.format,
            path: self.path,
            data_id: None,
            size: self.stat.size,
            mtime_us: self.stat.mtime_us,
        }
    }

    /// What a rename leaves as it is.
    fn fingerprint(&self) -> Fingerprint {
        (self.format.clone(), self.stat.size, self.stat.mtime_us)
    }

    fn is_file_of(&self, known: &KnownBook) -> bool {
        fingerprint_of(&known.file) == self.fingerprint()
    }
}

type Fingerprint = (String, u64, i64);

fn fingerprint_of(file: &BookFile) -> Fingerprint {
    (file.format.clone(), file.size, file.mtime_us)
}

/// Files by directory and stem: several formats of one stem are one book.
#[derive(Default)]
struct Groups {
    by_stem: BTreeMap<PathBuf, Vec<Candidate>>,
}

impl Groups {
    fn add(&mut self, request: &LookRequest, path: PathBuf, stat: FileStat) {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let Some(format) = path.extension().map(|extension| extension.to_string_lossy().to_uppercase()) else { return };
        let known_format = request.formats.iter().any(|known| known.eq_ignore_ascii_case(&format));
        // A cover in HTML or text is no book either.
        if name.starts_with("cover.") || !(known_format || (request.why_unread)(&format).is_some()) {
            return;
        }
        self.by_stem.entry(path.with_extension("")).or_default().push(Candidate { path, format, stat });
    }
}

/// Which known book a group of files is.
struct Identities<'a> {
    /// Known books of this very folder, by their place without its extension.
    by_stem: HashMap<PathBuf, &'a KnownBook>,
    /// Known books from when the folder had another path. A known book is in one of the two maps only, so no two
    /// groups of files can be the same book.
    by_source: HashMap<String, &'a KnownBook>,
    /// Known books whose own place is empty now, by what a rename keeps.
    displaced: HashMap<Fingerprint, Vec<&'a KnownBook>>,
    /// How many files at new places have a fingerprint: a second one makes a move ambiguous.
    newcomers: HashMap<Fingerprint, usize>,
    root: &'a Path,
    /// UUIDs that no new book may get.
    taken: HashSet<Uuid>,
    /// Displaced books already found again.
    claimed: HashSet<Uuid>,
}

impl<'a> Identities<'a> {
    fn new(root: &'a Path, known: &'a [KnownBook], groups: &Groups) -> Self {
        let (here, elsewhere): (Vec<_>, Vec<_>) = known.iter().partition(|known| known.file.path.starts_with(root));
        let mut identities = Identities {
            by_stem: here.into_iter().map(|known| (known.file.path.with_extension(""), known)).collect(),
            by_source: elsewhere.into_iter().map(|known| (known.source.id(), known)).collect(),
            displaced: HashMap::new(),
            newcomers: HashMap::new(),
            root,
            taken: known.iter().map(|known| known.uuid).collect(),
            claimed: HashSet::new(),
        };
        let mut placed = HashSet::new();
        for files in groups.by_stem.values() {
            match identities.in_place(files) {
                Some(known) => drop(placed.insert(known.uuid)),
                None => {
                    for file in files {
                        *identities.newcomers.entry(file.fingerprint()).or_default() += 1;
                    }
                }
            }
        }
        for known in known.iter().filter(|known| !placed.contains(&known.uuid)) {
            identities.displaced.entry(fingerprint_of(&known.file)).or_default().push(known);
        }
        identities
    }

    /// The known book of this very place, in whatever format, even where the whole folder has moved.
    fn in_place(&self, files: &[Candidate]) -> Option<&'a KnownBook> {
        let stem = files.first()?.path.with_extension("");
        let from_elsewhere = || {
            files.iter().find_map(|file| {
                let here = Source::from_relative_path(&relative(self.root, &file.path)?);
                self.by_source.get(&here.id()).copied()
            })
        };
        self.by_stem.get(&stem).copied().or_else(from_elsewhere)
    }

    fn find(&mut self, files: &[Candidate], chosen: &Candidate) -> Option<&'a KnownBook> {
        self.in_place(files).or_else(|| {
            let known = self.moved(chosen)?;
            self.claimed.insert(known.uuid).then_some(known)
        })
    }

    /// The known book that was moved here. Where two could be meant, the one of the same name, else none: a book
    /// embedded twice costs time, a book taken for another one is wrong.
    fn moved(&self, file: &Candidate) -> Option<&'a KnownBook> {
        let fingerprint = file.fingerprint();
        let displaced = self.displaced.get(&fingerprint)?;
        if let [only] = displaced.as_slice()
            && self.newcomers.get(&fingerprint) == Some(&1)
        {
            return Some(only);
        }
        let mut same_name = displaced.iter().filter(|known| known.file.path.file_name() == file.path.file_name());
        same_name.next().filter(|_| same_name.next().is_none()).copied()
    }

    /// A UUID from the place of first sight; another one where a book that moved away still holds that.
    fn new_uuid(&mut self, library_uuid: Uuid, relative: &str) -> Uuid {
        let mut uuid = Uuid::new_v5(&library_uuid, relative.as_bytes());
        let mut again = 1;
        while !self.taken.insert(uuid) {
            again += 1;
            uuid = Uuid::new_v5(&library_uuid, format!("{relative}\0{again}").as_bytes());
        }
        uuid
    }
}

/// Every file that could be a book. Symbolic links are followed, after all real directories, and no directory twice.
fn walk(root: &Path, heartbeat: &Heartbeat, mut take: impl FnMut(PathBuf, FileStat)) -> Result<(), LibraryError> {
    let mut visited = HashSet::new();
    let mut directories = VecDeque::from([(root.to_owned(), false)]);
    let mut links = VecDeque::new();
    while let Some((directory, behind_link)) = directories.pop_front().or_else(|| links.pop_front()) {
        heartbeat.beat();
        let failed = |source: io::Error| match LibraryError::from_io(&directory, source) {
            // Vanished during the walk: it was removed, or the mount goes. The next look tells.
            LibraryError::Missing { .. } | LibraryError::NotADirectory { .. } => LibraryError::ChangedUnderLook {
                path: root.to_owned(),
                reason: format!("directory {} vanished", directory.display()),
            },
            other => other,
        };
        let stat = fs::metadata(&directory).map_err(failed)?;
        // Only below links can a directory come up twice; inode numbers of network file systems are not to be trusted
        // with leaving a real directory out.
        if !visited.insert((stat.dev(), stat.ino())) && behind_link {
            continue;
        }
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || SYSTEM_DIRECTORIES.contains(&name.as_ref()) {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                directories.push_back((path, behind_link));
            } else if kind.is_file() || kind.is_symlink() {
                heartbeat.beat();
                match fs::metadata(&path) {
                    Ok(stat) if stat.is_file() => take(path, FileStat::from_metadata(&stat)),
                    Ok(stat) if stat.is_dir() => links.push_back((path, true)),
                    Ok(_) => {}
                    // A link that leads nowhere, or in a circle.
                    Err(error) if kind.is_symlink() && !super::error::is_mount_trouble(&error) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
    }
    Ok(())
}

/// None where the name is not UTF-8, which neither the state nor a payload can hold.
fn relative(root: &Path, path: &Path) -> Option<String> {
    path.to_str()?;
    Some(path.strip_prefix(root).ok()?.to_str()?.to_owned())
}

fn title_of(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::domain::LibraryKind;
    use crate::library::{Look, Shelf};

    struct Folder {
        folder: tempfile::TempDir,
        known: Vec<KnownBook>,
    }

    impl Folder {
        fn new() -> Self {
            Folder { folder: tempfile::tempdir().unwrap(), known: Vec::new() }
        }

        /// A file that has come to rest, of a time of its own.
        fn put(&self, relative: &str, text: &str) {
            let path = self.folder.path().join(relative);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let age = Duration::from_secs(1000 + text.len() as u64);
            File::options().append(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            let to = self.folder.path().join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(self.folder.path().join(from), to).unwrap();
        }

        fn try_look(&self, path: &Path) -> Result<(Look, Vec<Book>, Vec<PassedOver>), LibraryError> {
            let formats = ["EPUB".to_owned(), "TXT".to_owned()];
            let heartbeat = Heartbeat::default();
            let shelf = Shelf::open(LookRequest {
                path,
                kind: LibraryKind::Folder,
                folder_uuid: Some(UUID_NAMESPACE),
                expected: None,
                formats: &formats,
                why_unread: |format| (format == "PDF").then(|| "not asked for".to_owned()),
                scratch_dir: Path::new("/nonexistent"),
                full: false,
                heartbeat: &heartbeat,
            })?;
            let (mut books, mut passed_over) = (Vec::new(), Vec::new());
            let look = shelf.look(&self.known, |sightings| {
                for sighting in sightings {
                    match sighting {
                        Sighting::Book(book) => books.push(book),
                        Sighting::AsKnown(uuid) => assert!(self.known.iter().any(|known| known.uuid == uuid)),
                        Sighting::PassedOver(passed) => passed_over.push(passed),
                    }
                }
                Ok::<_, LibraryError>(())
            })?;
            Ok((look, books, passed_over))
        }

        /// A look whose books become the known ones; by path relative to the folder.
        fn look(&mut self) -> BTreeMap<String, Uuid> {
            let (_, books, _) = self.try_look(self.folder.path()).unwrap();
            self.known = books.iter().map(KnownBook::new).collect();
            books.iter().map(|book| (relative(self.folder.path(), &book.file.path).unwrap(), book.uuid)).collect()
        }
    }

    #[test]
    fn what_is_no_book_is_ignored() {
        let mut shelf = Folder::new();
        shelf.put("a.txt", "one");
        shelf.put("deep/er/b.epub", "four");
        for other in [".hidden.txt", ".caltrash/b/1/gone.epub", "cover.txt", "x/Cover.jpg", "x/metadata.opf", "x/n.xyz"]
        {
            shelf.put(other, "other");
        }
        for directory in SYSTEM_DIRECTORIES {
            shelf.put(&format!("{directory}/c.txt"), "system");
        }
        assert_eq!(shelf.look().keys().collect::<Vec<_>>(), ["a.txt", "deep/er/b.epub"]);
    }

    #[test]
    fn formats_of_one_stem_are_one_book_and_unread_ones_are_passed_over() {
        let mut shelf = Folder::new();
        shelf.put("a.txt", "1");
        shelf.put("b.pdf", "22");
        let before = shelf.look();
        shelf.put("a.epub", "333");
        let after = shelf.look();
        assert_eq!(after.keys().collect::<Vec<_>>(), ["a.epub"]);
        assert_eq!(before["a.txt"], after["a.epub"], "a better format of the same book");
        let (_, _, passed_over) = shelf.try_look(shelf.folder.path()).unwrap();
        assert_eq!(passed_over.len(), 1);
        assert!(passed_over[0].reason.contains("PDF"));
    }

    #[test]
    fn a_renamed_or_moved_file_stays_the_same_book_and_a_copy_does_not() {
        let mut shelf = Folder::new();
        shelf.put("a.txt", "1");
        shelf.put("b.txt", "22");
        let first = shelf.look();
        shelf.rename("a.txt", "new/place/c.txt");
        let second = shelf.look();
        assert_eq!(first["a.txt"], second["new/place/c.txt"]);
        assert_eq!(first["b.txt"], second["b.txt"]);
        // Another book at the place of the first one gets an identity of its own.
        shelf.put("a.txt", "4444");
        let third = shelf.look();
        assert_ne!(third["a.txt"], first["a.txt"]);
        assert_eq!(third["new/place/c.txt"], first["a.txt"]);
        // A copy, times and all.
        shelf.put("copy.txt", "22");
        let fourth = shelf.look();
        assert_eq!(fourth["b.txt"], first["b.txt"]);
        assert_ne!(fourth["copy.txt"], first["b.txt"]);
        assert_eq!(shelf.look(), fourth, "nothing changes by itself");
    }

    #[test]
    fn a_move_that_could_be_two_books_is_none_unless_the_names_tell() {
        let mut shelf = Folder::new();
        let stamp = SystemTime::now() - Duration::from_secs(5000);
        for name in ["a.txt", "b.txt"] {
            shelf.put(name, "same size");
            File::options().append(true).open(shelf.folder.path().join(name)).unwrap().set_modified(stamp).unwrap();
        }
        let first = shelf.look();
        shelf.rename("a.txt", "moved/a.txt");
        shelf.rename("b.txt", "moved/x.txt");
        let second = shelf.look();
        assert_eq!(second["moved/a.txt"], first["a.txt"]);
        assert!(!first.values().any(|uuid| *uuid == second["moved/x.txt"]));
    }

    #[test]
    fn a_folder_that_moved_as_a_whole_keeps_its_books() {
        let mut shelf = Folder::new();
        shelf.put("library/a.txt", "1");
        shelf.put("library/sub/b.txt", "22");
        let (old, new) = (shelf.folder.path().join("library"), shelf.folder.path().join("elsewhere"));
        let (_, books, _) = shelf.try_look(&old).unwrap();
        shelf.known = books.iter().map(KnownBook::new).collect();
        fs::rename(&old, &new).unwrap();
        let (_, moved, _) = shelf.try_look(&new).unwrap();
        assert_eq!(moved.len(), 2);
        for (book, known) in moved.iter().zip(&shelf.known) {
            assert_eq!(book.uuid, known.uuid);
            assert!(book.file.path.starts_with(&new));
        }
    }

    #[test]
    fn a_file_in_writing_is_waited_for() {
        let mut shelf = Folder::new();
        shelf.put("a.txt", "1");
        let before = shelf.look();
        fs::write(shelf.folder.path().join("a.txt"), "longer now").unwrap();
        fs::write(shelf.folder.path().join("new.txt"), "n").unwrap();
        let (look, books, passed_over) = shelf.try_look(shelf.folder.path()).unwrap();
        assert_eq!(look, Look { books: 1, passed_over: 1, unsettled: 2 });
        assert_eq!((books.len(), passed_over.len()), (0, 1), "the known one stays what it was");
        shelf.put("a.txt", "longer now");
        shelf.put("new.txt", "n");
        let after = shelf.look();
        assert_eq!(after.len(), 2);
        assert_eq!(after["a.txt"], before["a.txt"]);
    }

    #[test]
    fn links_are_followed_but_never_in_a_circle() {
        let mut shelf = Folder::new();
        shelf.put("library/a.txt", "1");
        shelf.put("outside/b.txt", "22");
        let library = shelf.folder.path().join("library");
        symlink(&library, library.join("circle")).unwrap();
        symlink(shelf.folder.path(), library.join("parent")).unwrap();
        symlink(shelf.folder.path().join("outside"), library.join("outside")).unwrap();
        symlink("nowhere.txt", library.join("dangling.txt")).unwrap();
        let (_, books, _) = shelf.try_look(&library).unwrap();
        let mut titles: Vec<_> = books.iter().map(|book| book.metadata.title.as_str()).collect();
        titles.sort_unstable();
        assert_eq!(titles, ["a", "b"]);
        shelf.known.clear();
    }

    #[test]
    fn names_that_are_not_utf8_are_passed_over() {
        use std::os::unix::ffi::OsStrExt;
        let shelf = Folder::new();
        shelf.put("a.txt", "1");
        fs::write(shelf.folder.path().join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "x").unwrap();
        let (look, _, _) = shelf.try_look(shelf.folder.path()).unwrap();
        assert_eq!((look.books, look.passed_over), (1, 1));
    }

    #[test]
    fn a_single_file_is_a_book_of_its_own() {
        let shelf = Folder::new();
        shelf.put("A Book.TXT", "1");
        let path = shelf.folder.path().join("A Book.TXT");
        let formats = ["TXT".to_owned()];
        let book = single_file(&path, UUID_NAMESPACE, &formats).unwrap();
        assert_eq!((book.metadata.title.as_str(), book.file.format.as_str(), book.file.size), ("A Book", "TXT", 1));
        assert_eq!(single_file(&path, UUID_NAMESPACE, &formats).unwrap().uuid, book.uuid);
        let refused = single_file(&path, UUID_NAMESPACE, &["EPUB".to_owned()]);
        assert!(matches!(refused, Err(LibraryError::UnknownFormat { .. })));
        let refused = single_file(&path.with_extension("gone"), UUID_NAMESPACE, &formats);
        assert!(matches!(refused, Err(LibraryError::Missing { .. })));
    }

    #[test]
    fn an_unreadable_directory_is_an_error_not_a_smaller_shelf() {
        let shelf = Folder::new();
        shelf.put("a.txt", "1");
        shelf.put("closed/b.txt", "22");
        let closed = shelf.folder.path().join("closed");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        // Root reads everything, so there this says nothing.
        let privileged = fs::read_dir(&closed).is_ok();
        let look = shelf.try_look(shelf.folder.path());
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(privileged || matches!(look, Err(LibraryError::Unreadable { .. })), "{look:?}");
    }
}
