//! A real Calibre library, made and changed by Calibre's own `calibredb`. Never touches a library it did not make.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A library in a temporary directory, with a configuration of its own.
pub struct CalibreLibrary {
    place: TempDir,
}

impl CalibreLibrary {
    /// A new, empty library.
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let library = CalibreLibrary { place };
        for directory in ["library", "config", "runtime", "incoming"] {
            fs::create_dir(library.place.path().join(directory)).unwrap();
        }
        // The first command makes metadata.db.
        library.calibredb(&["list"]);
        assert!(library.database().exists());
        library
    }

    pub fn path(&self) -> PathBuf {
        self.place.path().join("library")
    }

    pub fn database(&self) -> PathBuf {
        self.path().join("metadata.db")
    }

    /// Runs one command of `calibredb` on the library and returns what it printed.
    ///
    /// Only one calibredb runs at a time on a machine, whatever the library: tests beside this one are waited for.
    pub fn calibredb(&self, arguments: &[&str]) -> String {
        let started = Instant::now();
        loop {
            match self.try_calibredb(arguments) {
                Ok(printed) => return printed,
                Err(refused) if refused.contains("Another calibre program") => {
                    assert!(started.elapsed() < Duration::from_secs(120), "calibredb {arguments:?}: {refused}");
                    thread::sleep(Duration::from_millis(50));
                }
                Err(failed) => panic!("calibredb {arguments:?}: {failed}"),
            }
        }
    }

    fn try_calibredb(&self, arguments: &[&str]) -> Result<String, String> {
        let runtime = self.place.path().join("runtime");
        fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let output = Command::new("calibredb")
            .arg("--with-library")
            .arg(self.path())
            .args(arguments)
            .env("QT_QPA_PLATFORM", "offscreen")
            .env("QTWEBENGINE_DISABLE_SANDBOX", "1")
            .env("XDG_RUNTIME_DIR", &runtime)
            .env("CALIBRE_CONFIG_DIRECTORY", self.place.path().join("config"))
            .output()
            .expect("calibredb must be installed: apt-get install --no-install-recommends calibre");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(stdout) } else { Err(format!("{stdout}{stderr}")) }
    }

    /// Adds a book and returns its id.
    pub fn add(&self, file: &Path) -> i64 {
        let printed = self.calibredb(&["add", file.to_str().unwrap()]);
        let ids = printed.lines().find_map(|line| line.strip_prefix("Added book ids: "));
        // calibredb succeeds, too, when it refuses a duplicate.
        ids.unwrap_or_else(|| panic!("calibredb added nothing: {printed}")).trim().parse().unwrap()
    }

    /// Adds a format to a book, or replaces the one it has.
    pub fn add_format(&self, id: i64, file: &Path) {
        self.calibredb(&["add_format", &id.to_string(), file.to_str().unwrap()]);
    }

    /// As Calibre's field names are: `title`, `authors`, `tags`, `series`, `languages`, ...
    pub fn set_metadata(&self, id: i64, field: &str, value: &str) {
        self.calibredb(&["set_metadata", &id.to_string(), "--field", &format!("{field}:{value}")]);
    }

    pub fn remove(&self, id: i64) {
        self.calibredb(&["remove", "--permanent", &id.to_string()]);
    }

    /// A text file outside the library, ready to be added; its stem becomes the title.
    pub fn text(&self, stem: &str, text: &str) -> PathBuf {
        let path = self.place.path().join("incoming").join(format!("{stem}.txt"));
        fs::write(&path, text).unwrap();
        path
    }

    /// A small EPUB of one chapter outside the library, ready to be added.
    pub fn epub(&self, stem: &str, title: &str, author: &str, text: &str) -> PathBuf {
        const MAKE: &str = r#"
import html, sys, zipfile
path, title, author, text = sys.argv[1:2] + [html.escape(argument) for argument in sys.argv[2:]]
with zipfile.ZipFile(path, "w") as book:
    book.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
    book.writestr("META-INF/container.xml", '<?xml version="1.0"?><container version="1.0" '
        'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="book.opf" '
        'media-type="application/oebps-package+xml"/></rootfiles></container>')
    book.writestr("book.opf", '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="2.0" '
        'unique-identifier="id"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">'
        f'test-{title}</dc:identifier><dc:title>{title}</dc:title><dc:creator>{author}</dc:creator>'
        '<dc:language>en</dc:language></metadata><manifest><item id="c" href="c.xhtml" '
        'media-type="application/xhtml+xml"/></manifest><spine><itemref idref="c"/></spine></package>')
    book.writestr("c.xhtml", '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>c</title></head>'
        f'<body><h1>Chapter</h1><p>{text}</p></body></html>')
"#;
        let path = self.place.path().join("incoming").join(format!("{stem}.epub"));
        let made = Command::new("python3").arg("-c").arg(MAKE).arg(&path).args([title, author, text]).status();
        assert!(made.expect("python3 must be installed").success());
        path
    }
}
