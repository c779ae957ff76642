//! Calibre libraries of many books, made by SQL in an empty one of Calibre's own: `calibredb add` would take hours.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use alexandria_ingestd::domain::{Book, BookFile, KnownBook, Metadata, Source};
use rusqlite::Connection;
use uuid::Uuid;

use crate::calibre::CalibreLibrary;

/// So many directories hold the books' files.
const WRITERS: i64 = 997;
/// All books of a writer are one file: the state and the store never see that, and the disk has little to delete.
const FILE: &str = "The Title of a Book of an Ordinary Length - Writer";
const TEXT: &str = "Bees live in a hive. The queen lays eggs all summer.";

/// `count` books with the usual metadata, without files.
pub fn big_library(count: i64) -> CalibreLibrary {
    let library = CalibreLibrary::new();
    let database = editor(&library);
    let statement = "
        BEGIN;
        CREATE TEMP TABLE n AS WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < COUNT) SELECT i FROM c;
        INSERT INTO books(id, title, sort, timestamp, pubdate, series_index, author_sort, path, uuid)
            SELECT i, 'The Title of Book ' || i, 'Title', '2024-01-02 03:04:05.678901+00:00', '2001-02-03 00:00:00+00:00', 1.0,
            'Writer', 'Writer ' || (i % WRITERS), printf('00000000-0000-4000-8000-%012x', i) FROM n;
        INSERT INTO data(id, book, format, uncompressed_size, name) SELECT i, i, 'TXT', SIZE, 'FILE' FROM n;
        INSERT INTO authors(id, name, sort) SELECT i, 'Writer ' || i, 'Writer' FROM n WHERE i <= WRITERS;
        INSERT INTO books_authors_link(book, author) SELECT i, 1 + i % WRITERS FROM n WHERE COUNT >= WRITERS;
        INSERT INTO tags(id, name) SELECT i, 'tag ' || i FROM n WHERE i <= 50;
        INSERT INTO books_tags_link(book, tag) SELECT i, 1 + i % 50 FROM n;
        INSERT INTO books_tags_link(book, tag) SELECT i, 1 + (i + 7) % 50 FROM n;
        INSERT INTO languages(id, lang_code) VALUES (1, 'eng');
        INSERT INTO books_languages_link(book, lang_code, item_order) SELECT i, 1, 0 FROM n;
        INSERT INTO identifiers(book, type, val) SELECT i, 'isbn', '978' || i FROM n;
        INSERT INTO comments(book, text) SELECT i, printf('%.400c', 'x') FROM n;
        COMMIT;";
    let statement = statement
        .replace("COUNT", &count.to_string())
        .replace("WRITERS", &WRITERS.to_string())
        .replace("SIZE", &TEXT.len().to_string())
        .replace("FILE", FILE);
    database.execute_batch(&statement).unwrap();
    library
}

/// The same, with a file for every book, at rest.
pub fn big_library_with_files(count: i64) -> CalibreLibrary {
    let library = big_library(count);
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    for writer in 0..WRITERS {
        let directory = library.path().join(format!("Writer {writer}"));
        fs::create_dir(&directory).unwrap();
        let file = directory.join(format!("{FILE}.txt"));
        fs::write(&file, TEXT).unwrap();
        File::options().append(true).open(file).unwrap().set_modified(long_ago).unwrap();
    }
    library
}

/// The catalogue, open for changes by SQL. Calibre's triggers, which call functions that only Calibre has, are gone.
pub fn editor(library: &CalibreLibrary) -> Connection {
    let database = Connection::open(library.database()).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let triggers: Vec<String> = database
        .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for trigger in triggers {
        database.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    database
}

/// Its books as a state would have them whose metadata are of another age.
pub fn known_of_big_library(library: &CalibreLibrary, count: i64) -> Vec<KnownBook> {
    let uuid: String = editor(library).query_row("SELECT uuid FROM library_id", [], |row| row.get(0)).unwrap();
    let library_uuid = Uuid::parse_str(&uuid).unwrap();
    (1..=count).map(|id| known(id, &library.path(), library_uuid)).collect()
}

fn known(id: i64, path: &Path, library_uuid: Uuid) -> KnownBook {
    KnownBook::new(&Book {
        uuid: Uuid::parse_str(&format!("00000000-0000-4000-8000-{id:012x}")).unwrap(),
        library_uuid,
        source: Source::Calibre(id),
        metadata: Metadata::default(),
        file: BookFile {
            format: "TXT".into(),
            path: path.join(format!("Writer {}/{FILE}.txt", id % WRITERS)),
            data_id: Some(id),
            size: TEXT.len() as u64,
            mtime_us: 1,
        },
        others: Vec::new(),
        unread: Vec::new(),
        added_us: 1,
    })
}
