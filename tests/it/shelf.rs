//! A Calibre library made and changed by code, a thousand times faster than by calibredb: the rows and files, and the
//! order of their changes, are those that Calibre was measured to make. It also keeps what is on the shelf, so that a
//! test can say what the index must hold. Must never do to a library what Calibre does not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use alexandria_ingestd::domain::{Metadata, hex};
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::calibre::CalibreLibrary;
use crate::damage::{Seeded, archives};

/// The formats that are made here, in the service's order of preference.
const FORMATS: [&str; 2] = ["EPUB", "TXT"];

const WORDS: [&str; 40] = [
    "river",
    "stone",
    "lamp",
    "window",
    "harbour",
    "winter",
    "letter",
    "garden",
    "engine",
    "copper",
    "morning",
    "bridge",
    "silver",
    "forest",
    "captain",
    "island",
    "market",
    "violin",
    "thunder",
    "paper",
    "candle",
    "orchard",
    "signal",
    "shadow",
    "mirror",
    "village",
    "anchor",
    "meadow",
    "kettle",
    "ribbon",
    "carried",
    "followed",
    "opened",
    "turned",
    "watched",
    "remembered",
    "crossed",
    "answered",
    "gathered",
    "promised",
];

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// Text that depends on nothing but these numbers.
    Text { number: u64, chapters: usize, words: usize },
    /// No book, whatever its name says.
    Damaged { number: u64 },
}

impl Story {
    pub fn is_readable(self) -> bool {
        matches!(self, Story::Text { .. })
    }

    /// The file. `wrapping` changes bytes and nothing of the text, as Calibre's "embed metadata" does.
    fn bytes(self, format: &str, wrapping: u64) -> Vec<u8> {
        let (number, chapters, words) = match self {
            Story::Text { number, chapters, words } => (number, chapters, words),
            Story::Damaged { number } => {
                return format!("{wrapping} is no {format} number {number} ").repeat(40).into();
            }
        };
        let mut random = Seeded(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let texts: Vec<String> = (1..=chapters).map(|_| paragraphs(&mut random, number, words / chapters)).collect();
        match format {
            "TXT" => {
                let chapters = texts.iter().enumerate().map(|(at, text)| format!("Chapter {}\n\n{text}\n\n", at + 1));
                // Trailing blanks are no text.
                (chapters.collect::<String>() + &"\n".repeat(wrapping as usize)).into()
            }
            "EPUB" => epub(number, &texts, wrapping),
            other => panic!("no {other} is made here"),
        }
    }
}

fn paragraphs(random: &mut Seeded, number: u64, words: usize) -> String {
    let mut text = format!("This is part of story number {number}.");
    let mut count = 7;
    while count < words {
        let length = 6 + random.below(9);
        let sentence: Vec<&str> = (0..length).map(|_| WORDS[random.below(WORDS.len())]).collect();
        let gap = if random.below(6) == 0 { "\n\n" } else { " " };
        text.push_str(&format!("{gap}The {} {}.", sentence.join(" "), random.below(1000)));
        count += length + 2;
    }
    text
}

fn epub(number: u64, chapters: &[String], wrapping: u64) -> Vec<u8> {
    let ids = 1..=chapters.len();
    let items: String = ids
        .clone()
        .map(|id| format!(r#"<item id="c{id}" href="c{id}.xhtml" media-type="application/xhtml+xml"/>"#))
        .collect();
    let spine: String = ids.map(|id| format!(r#"<itemref idref="c{id}"/>"#)).collect();
    let container = r#"<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"#;
    let opf = format!(
        r#"<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="2.0" unique-identifier="id"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">story-{number}</dc:identifier><dc:title>Story {number}</dc:title><dc:language>en</dc:language><meta name="calibre:timestamp" content="{wrapping}"/></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"#
    );
    let mut files = vec![
        ("mimetype".to_owned(), b"application/epub+zip".to_vec()),
        ("META-INF/container.xml".to_owned(), container.into()),
        ("book.opf".to_owned(), opf.into_bytes()),
    ];
    for (at, text) in chapters.iter().enumerate() {
        let id = at + 1;
        let body: String = text.split("\n\n").map(|paragraph| format!("<p>{paragraph}</p>")).collect();
        let page = format!(
            r#"<html xmlns="http://www.w3.org/1999/xhtml"><head><title>c</title></head><body><h1>Chapter {id}</h1>{body}</body></html>"#
        );
        files.push((format!("c{id}.xhtml"), page.into_bytes()));
    }
    archives::zip(&files)
}

/// A file of a book.
#[derive(Debug, Clone)]
pub struct ShelfFile {
    pub format: String,
    pub story: Story,
    wrapping: u64,
    /// Of its bytes, as hex.
    pub sha256: String,
}

/// A book as the catalogue has it.
#[derive(Debug, Clone)]
pub struct ShelfBook {
    pub id: i64,
    pub uuid: Uuid,
    pub metadata: Metadata,
    /// Relative to the library.
    path: String,
    /// The files' name without extension.
    name: String,
    pub files: Vec<ShelfFile>,
    /// Every file it ever had: what was in it, and its hash.
    past: Vec<(Story, String)>,
}

impl ShelfBook {
    /// The file that the service must read: the first in its order that gives text.
    pub fn read_from(&self) -> Option<&ShelfFile> {
        let of = |format: &&str| self.files.iter().find(|file| file.format == **format && file.story.is_readable());
        FORMATS.iter().find_map(of)
    }

    /// The hashes of all files that ever held this story here: points made from any of them have the right text.
    pub fn hashes_of(&self, story: Story) -> impl Iterator<Item = &str> {
        self.past.iter().filter(move |(other, _)| *other == story).map(|(_, sha256)| sha256.as_str())
    }
}

/// The library and what is in it.
#[derive(Debug, Clone)]
pub struct Shelf {
    path: PathBuf,
    pub library_uuid: Uuid,
    books: BTreeMap<i64, ShelfBook>,
    random: Seeded,
    ticks: i64,
}

impl Shelf {
    /// A new library at `path`, which must not exist. Everything that Calibre would draw by lot comes from the seed.
    pub fn new(path: &Path, seed: u64) -> Shelf {
        static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
        let empty = EMPTY.get_or_init(|| fs::read(CalibreLibrary::new().database()).unwrap());
        fs::create_dir(path).unwrap();
        fs::write(path.join("metadata.db"), empty).unwrap();
        let mut random = Seeded(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
        let library_uuid = draw_uuid(&mut random);
        let shelf = Shelf { path: path.to_owned(), library_uuid, books: BTreeMap::new(), random, ticks: 0 };
        let database = shelf.open();
        let triggers: Vec<String> = database
            .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        // They call functions that only Calibre has; what they do is done here.
        for trigger in triggers {
            database.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
        }
        database.execute("UPDATE library_id SET uuid = ?1", [library_uuid.to_string()]).unwrap();
        shelf
    }

    /// The same library at another place, times of files included.
    pub fn copied_to(&self, path: &Path) -> Shelf {
        assert!(Command::new("cp").arg("-a").arg(&self.path).arg(path).status().unwrap().success());
        Shelf { path: path.to_owned(), ..self.clone() }
    }

    /// Moves the library, as a mount that goes and comes.
    pub fn move_to(&mut self, path: &Path) {
        fs::rename(&self.path, path).unwrap();
        self.path = path.to_owned();
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn books(&self) -> impl Iterator<Item = &ShelfBook> {
        self.books.values()
    }

    pub fn book(&self, id: i64) -> &ShelfBook {
        &self.books[&id]
    }

    pub fn ids(&self) -> Vec<i64> {
        self.books.keys().copied().collect()
    }

    /// Adds a book; its id.
    pub fn add(&mut self, title: &str, author: &str, files: &[(&str, Story)]) -> i64 {
        let uuid = draw_uuid(&mut self.random);
        let now = self.now();
        let database = self.open();
        database
            .execute(
                "INSERT INTO books(title, sort, timestamp, pubdate, series_index, author_sort, path, uuid, last_modified) \
                 VALUES (?1, ?1, ?2, '0101-01-01 00:00:00+00:00', 1.0, ?3, '', ?4, ?2)",
                params![title, now, author, uuid.to_string()],
            )
            .unwrap();
        let id = database.last_insert_rowid();
        let author_id = id_of_name(&database, "authors", "name", author);
        database.execute("INSERT INTO books_authors_link(book, author) VALUES (?1, ?2)", [id, author_id]).unwrap();
        let path = format!("{author}/{title} ({id})");
        fs::create_dir_all(self.path.join(&path)).unwrap();
        database.execute("UPDATE books SET path = ?2 WHERE id = ?1", params![id, path]).unwrap();
        fs::write(self.path.join(&path).join("cover.jpg"), b"no picture").unwrap();
        database.execute("UPDATE books SET has_cover = 1 WHERE id = ?1", [id]).unwrap();
        let metadata = Metadata {
            title: title.to_owned(),
            authors: vec![author.to_owned()],
            language: Some("eng".to_owned()),
            ..Metadata::default()
        };
        let name = format!("{title} - {author}");
        self.books.insert(id, ShelfBook { id, uuid, metadata, path, name, files: Vec::new(), past: Vec::new() });
        for (format, story) in files {
            self.write(id, format, *story, 0);
            let transaction = database.unchecked_transaction().unwrap();
            self.insert_data(&transaction, id, format);
            let language = id_of_name(&transaction, "languages", "lang_code", "eng");
            transaction
                .execute("INSERT OR IGNORE INTO books_languages_link(book, lang_code) VALUES (?1, ?2)", [id, language])
                .unwrap();
            transaction.commit().unwrap();
        }
        self.back_up_metadata(id);
        self.bump(&database, id);
        id
    }

    /// An edit of fields that name no directory.
    pub fn set_tags(&mut self, id: i64, tags: &[&str]) {
        let database = self.open();
        let transaction = database.unchecked_transaction().unwrap();
        transaction.execute("DELETE FROM books_tags_link WHERE book = ?1", [id]).unwrap();
        for tag in tags {
            let tag = id_of_name(&transaction, "tags", "name", tag);
            transaction.execute("INSERT INTO books_tags_link(book, tag) VALUES (?1, ?2)", [id, tag]).unwrap();
        }
        transaction.commit().unwrap();
        self.bump(&database, id);
        let metadata = &mut self.books.get_mut(&id).unwrap().metadata;
        metadata.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        metadata.tags.sort();
    }

    /// None takes the book out of its series.
    pub fn set_series(&mut self, id: i64, series: Option<(&str, f64)>) {
        let database = self.open();
        let transaction = database.unchecked_transaction().unwrap();
        transaction.execute("DELETE FROM books_series_link WHERE book = ?1", [id]).unwrap();
        if let Some((name, index)) = series {
            let name = id_of_name(&transaction, "series", "name", name);
            transaction.execute("INSERT INTO books_series_link(book, series) VALUES (?1, ?2)", [id, name]).unwrap();
            transaction.execute("UPDATE books SET series_index = ?2 WHERE id = ?1", params![id, index]).unwrap();
        }
        transaction.commit().unwrap();
        self.bump(&database, id);
        let metadata = &mut self.books.get_mut(&id).unwrap().metadata;
        metadata.series = series.map(|(name, _)| name.to_owned());
        metadata.series_index = series.map(|(_, index)| index);
    }

    /// Another title: a new directory is made and the files linked into it; the files' name changes before the
    /// directory's does in the catalogue; the old directory goes last.
    pub fn rename(&mut self, id: i64, title: &str) {
        let now = self.now();
        let database = self.open();
        let book = self.books.get_mut(&id).unwrap();
        database
            .execute(
                "UPDATE books SET title = ?2, sort = ?2, last_modified = ?3 WHERE id = ?1",
                params![id, title, now],
            )
            .unwrap();
        let author = book.metadata.authors[0].clone();
        let (path, name) = (format!("{author}/{title} ({id})"), format!("{title} - {author}"));
        let (before, after) = (self.path.join(&book.path), self.path.join(&path));
        if before != after {
            fs::create_dir(&after).unwrap();
            for file in &book.files {
                let extension = file.format.to_lowercase();
                let old = before.join(format!("{}.{extension}", book.name));
                fs::hard_link(old, after.join(format!("{name}.{extension}"))).unwrap();
            }
            fs::hard_link(before.join("cover.jpg"), after.join("cover.jpg")).unwrap();
            database.execute("UPDATE data SET name = ?2 WHERE book = ?1", params![id, name]).unwrap();
            database.execute("UPDATE books SET path = ?2 WHERE id = ?1", params![id, path]).unwrap();
            fs::remove_dir_all(before).unwrap();
        }
        book.metadata.title = title.to_owned();
        (book.path, book.name) = (path, name);
    }

    /// A new format, or another file in place of the one there is: overwritten in place, then its row is a new one.
    pub fn add_format(&mut self, id: i64, format: &str, story: Story) {
        self.write(id, format, story, 0);
        let database = self.open();
        self.insert_data(&database, id, format);
        self.bump(&database, id);
    }

    /// The file goes before its row.
    pub fn remove_format(&mut self, id: i64, format: &str) {
        fs::remove_file(self.file_path(id, format)).unwrap();
        let database = self.open();
        database.execute("DELETE FROM data WHERE book = ?1 AND format = ?2", params![id, format]).unwrap();
        self.bump(&database, id);
        self.books.get_mut(&id).unwrap().files.retain(|file| file.format != format);
    }

    /// The directory goes before the rows.
    pub fn remove(&mut self, id: i64) {
        let book = self.books.remove(&id).unwrap();
        let trash = self.path.join(".caltrash/b").join(id.to_string());
        fs::create_dir_all(trash.parent().unwrap()).unwrap();
        fs::rename(self.path.join(book.path), trash).unwrap();
        let database = self.open();
        let transaction = database.unchecked_transaction().unwrap();
        transaction.execute("DELETE FROM books WHERE id = ?1", [id]).unwrap();
        for table in ["books_authors_link", "books_series_link", "books_tags_link", "books_languages_link", "data"] {
            transaction.execute(&format!("DELETE FROM {table} WHERE book = ?1"), [id]).unwrap();
        }
        transaction.commit().unwrap();
    }

    /// Another time of change, the same bytes, no word of it in the catalogue.
    pub fn touch(&mut self, id: i64) {
        self.ticks += 1;
        let time = SystemTime::now() + Duration::from_millis(self.ticks.unsigned_abs());
        for file in &self.books[&id].files {
            fs::File::options()
                .append(true)
                .open(self.file_path(id, &file.format))
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
    }

    /// "Embed metadata": the files' bytes change and their rows are new ones; the text and `last_modified` stay.
    pub fn embed_metadata(&mut self, id: i64) {
        let files = self.books[&id].files.clone();
        for file in files {
            self.write(id, &file.format, file.story, file.wrapping + 1);
            self.insert_data(&self.open(), id, &file.format);
        }
    }

    /// What a new custom column does.
    pub fn bump_all(&mut self) {
        let now = self.now();
        self.open().execute("UPDATE books SET last_modified = ?1", [now]).unwrap();
    }

    fn write(&mut self, id: i64, format: &str, story: Story, wrapping: u64) {
        let bytes = story.bytes(format, wrapping);
        fs::write(self.file_path(id, format), &bytes).unwrap();
        let sha256 = hex(&Sha256::digest(&bytes));
        let book = self.books.get_mut(&id).unwrap();
        book.past.push((story, sha256.clone()));
        book.files.retain(|other| other.format != format);
        book.files.push(ShelfFile { format: format.to_owned(), story, wrapping, sha256 });
    }

    /// The row of a file that is there already; a new one where there was one.
    fn insert_data(&self, database: &Connection, id: i64, format: &str) {
        let size = fs::metadata(self.file_path(id, format)).unwrap().len();
        let name = &self.books[&id].name;
        database
            .execute(
                "INSERT OR REPLACE INTO data(book, format, uncompressed_size, name) VALUES (?1, ?2, ?3, ?4)",
                params![id, format, size as i64, name],
            )
            .unwrap();
    }

    fn file_path(&self, id: i64, format: &str) -> PathBuf {
        let book = &self.books[&id];
        self.path.join(&book.path).join(format!("{}.{}", book.name, format.to_lowercase()))
    }

    fn back_up_metadata(&self, id: i64) {
        let book = &self.books[&id];
        fs::write(self.path.join(&book.path).join("metadata.opf"), format!("<package>{}</package>", book.uuid))
            .unwrap();
    }

    fn bump(&mut self, database: &Connection, id: i64) {
        let now = self.now();
        database.execute("UPDATE books SET last_modified = ?2 WHERE id = ?1", params![id, now]).unwrap();
    }

    /// Calibre's notation; later at every call.
    fn now(&mut self) -> String {
        self.ticks += 1;
        format!("2026-01-02 03:{:02}:{:02}.{:06}+00:00", self.ticks / 60 % 60, self.ticks % 60, self.ticks % 1_000_000)
    }

    /// Opened for each change: the library's place may have moved since the last one.
    fn open(&self) -> Connection {
        let database = Connection::open(self.path.join("metadata.db")).unwrap();
        // No power is cut here, and a hundred thousand changes are made.
        database.execute_batch("PRAGMA synchronous = OFF").unwrap();
        database
    }
}

fn id_of_name(database: &Connection, table: &str, column: &str, name: &str) -> i64 {
    database.execute(&format!("INSERT OR IGNORE INTO {table}({column}) VALUES (?1)"), [name]).unwrap();
    let sql = format!("SELECT id FROM {table} WHERE {column} = ?1");
    database.query_row(&sql, [name], |row| row.get(0)).unwrap()
}

fn draw_uuid(random: &mut Seeded) -> Uuid {
    let bytes: [u8; 16] = std::array::from_fn(|_| random.below(256) as u8);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
