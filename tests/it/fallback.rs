//! Books whose preferred format gives no text, and books that have none at all, through the running service: real
//! libraries, changed by Calibre's own calibredb.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use alexandria_ingestd::config::StoreConfig;
use alexandria_ingestd::embed::{Embedder, FakeEmbedder};
use alexandria_ingestd::store::{self, CollectionSpec, Ensured, Filter};

use crate::calibre::CalibreLibrary;
use crate::daemon::{Daemon, text};
use crate::service::encrypt;

const BEES: &str = "Bees live in a hive. The queen lays eggs all summer. Workers bring nectar and pollen home.";
const SHIPS: &str = "Ships cross the ocean under sail. A storm broke the mast. The crew rowed to the harbour.";

/// A file outside the library that is no book, whatever its name says.
fn junk(library: &CalibreLibrary, name: &str) -> PathBuf {
    let path = library.path().with_file_name("incoming").join(name);
    fs::write(&path, format!("this is {name} and nothing else ").repeat(100)).unwrap();
    path
}

/// The EPUB by Calibre's converter.
fn azw3_of(library: &CalibreLibrary, epub: &str) -> PathBuf {
    let epub = library.epub(epub, "Ships", "B", SHIPS);
    let made = epub.with_extension("azw3");
    let output = Command::new("ebook-convert")
        .args([&epub, &made])
        .env("QT_QPA_PLATFORM", "offscreen")
        .env("QTWEBENGINE_DISABLE_SANDBOX", "1")
        .env("XDG_RUNTIME_DIR", library.path().with_file_name("runtime"))
        .env("CALIBRE_CONFIG_DIRECTORY", library.path().with_file_name("config"))
        .output()
        .expect("ebook-convert must be installed: apt-get install --no-install-recommends calibre");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    made
}

/// Kindle's format first, written as nobody does.
fn service(library: &CalibreLibrary) -> Daemon {
    let mut daemon = Daemon::new(&library.path());
    daemon.set("library.formats", "azw3, Epub, TXT");
    daemon
}

/// Two looks, one of them in full, and time for what they might queue by mistake.
fn look_twice(daemon: &mut Daemon) {
    for arguments in [&["rescan"][..], &["rescan", "--full"]] {
        assert!(daemon.ctl(arguments).status.success());
        std::thread::sleep(Duration::from_millis(700));
    }
}

fn lines(log: &str, words: &str) -> usize {
    log.lines().filter(|line| line.contains(words)).count()
}

/// Points by their payload's format, of a service that is stopped.
fn points_of_format(daemon: &Daemon, format: &str) -> usize {
    let config = StoreConfig::default();
    let store = store::open(&config, &daemon.state_dir()).unwrap();
    let embedder = FakeEmbedder::default();
    let (dimension, model_id) = (embedder.info().dimension, embedder.info().id.clone());
    let spec = CollectionSpec { name: config.collection, dimension, model_id };
    assert_eq!(store.ensure_collection(&spec).unwrap(), Ensured::Present);
    store.count(&Filter::field("book_format", format)).unwrap()
}

#[test]
fn the_next_format_stands_in_until_the_preferred_one_is_mended() {
    let library = CalibreLibrary::new();
    let id = library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    library.add_format(id, &junk(&library, "hive.azw3"));
    library.add_format(id, &library.text("hive", "A spare text that nobody needs."));
    let mut daemon = service(&library);
    daemon.start();
    daemon.until_indexed(1);
    assert!(daemon.search("queen lays eggs")[0].1.contains("Workers bring nectar"));
    let log = daemon.log();
    assert_eq!(lines(&log, "AZW3 gives no text, so EPUB is read instead"), 1, "{log}");
    assert_eq!(lines(&log, "indexed from EPUB instead of AZW3"), 1, "{log}");
    assert_eq!(daemon.status()["queue"]["fallbacks"], 1);
    assert_eq!(daemon.json(&["queue", "--state", "done"])["jobs"][0]["format"], "EPUB");
    let failed = daemon.json(&["failed"]);
    assert_eq!((&failed["total"], &failed["fallbacks"][0]["format"]), (&0.into(), &"EPUB".into()));
    let said = text(&daemon.ctl(&["failed"]).stdout);
    assert!(said.contains("Read in another format") && said.contains("AZW3: ") && said.contains("damaged"), "{said}");

    // The file that is not used is no news, whatever happens to it; nor is a new look.
    look_twice(&mut daemon);
    library.add_format(id, &library.text("hive", "Another spare text."));
    look_twice(&mut daemon);
    assert_eq!(daemon.outcomes(), ["embedded"]);
    // Metadata goes into the payloads; no file is read for it.
    library.set_metadata(id, "tags", "insects");
    daemon.until("the metadata is taken up", |daemon| daemon.outcomes() == ["payload_only", "embedded"]);
    assert_eq!(lines(&daemon.log(), "is read instead"), 1);
    let epub = PathBuf::from(daemon.json(&["queue", "--state", "done"])["jobs"][0]["path"].as_str().unwrap());
    assert!(daemon.ctl(&["ingest", epub.with_extension("epub").to_str().unwrap()]).status.success());
    daemon.until("it was tried again by hand", |daemon| daemon.outcomes().len() == 3);
    assert_eq!(daemon.outcomes()[0], "unchanged");
    assert_eq!(lines(&daemon.log(), "is read instead"), 2);
    let points = daemon.points();
    daemon.stop();
    assert_eq!((points_of_format(&daemon, "EPUB") as u64, points_of_format(&daemon, "AZW3")), (points, 0));
    daemon.start();

    // The file in use is replaced.
    library.add_format(id, &library.epub("bees", "The Hive", "Ana Horvat", &format!("{BEES} Drones do nothing.")));
    daemon.until("the new EPUB is read", |daemon| daemon.outcomes().len() == 4);
    assert!(daemon.search("drones do nothing")[0].1.contains("Drones"));
    assert_eq!(lines(&daemon.log(), "is read instead"), 2, "what is known to fail is not tried again");
    // The preferred one is mended.
    library.add_format(id, &azw3_of(&library, "ships"));
    daemon.until("the AZW3 is read", |daemon| daemon.outcomes().len() == 5);
    daemon.until_indexed(1);
    assert_eq!(daemon.outcomes()[0], "embedded");
    assert!(daemon.search("storm broke the mast")[0].1.contains("mast"));
    assert!(daemon.search("queen lays eggs").iter().all(|hit| !hit.1.contains("queen")), "the old points are gone");
    assert_eq!(daemon.status()["queue"]["fallbacks"], 0);
    look_twice(&mut daemon);
    assert_eq!(daemon.outcomes().len(), 5);
    daemon.stop();
    assert_eq!(points_of_format(&daemon, "EPUB"), 0);
}

#[test]
fn a_failed_format_that_goes_is_no_news_and_a_better_one_is() {
    let library = CalibreLibrary::new();
    let id = library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let mut daemon = service(&library);
    daemon.start();
    daemon.until_indexed(1);
    // A better format, but broken: the text stays, and nothing is embedded.
    library.add_format(id, &junk(&library, "hive.azw3"));
    daemon.until("it was tried", |daemon| daemon.outcomes() == ["unchanged", "embedded"]);
    assert_eq!(daemon.status()["queue"]["fallbacks"], 1);
    library.calibredb(&["remove_format", &id.to_string(), "AZW3"]);
    daemon.until("its trace is gone", |daemon| daemon.status()["queue"]["fallbacks"] == 0);
    look_twice(&mut daemon);
    assert_eq!(daemon.outcomes(), ["unchanged", "embedded"]);
    library.add_format(id, &azw3_of(&library, "ships"));
    daemon.until("the better format is read", |daemon| daemon.outcomes() == ["embedded", "unchanged", "embedded"]);
    assert!(daemon.search("storm broke the mast")[0].1.contains("mast"));
}

#[test]
fn a_book_without_any_sound_format_is_parked_with_a_reason_for_each() {
    let library = CalibreLibrary::new();
    let id = library.add(&junk(&library, "Broken.epub"));
    library.add_format(id, &junk(&library, "broken.azw3"));
    library.add_format(id, &library.text("broken", ""));
    library.add_format(id, &junk(&library, "broken.cbz"));
    let locked = library.epub("locked", "Locked", "B", SHIPS);
    encrypt(&locked);
    let locked = library.add(&locked);
    library.add_format(locked, &junk(&library, "locked.cbr"));
    let mut daemon = service(&library);
    daemon.start();
    daemon.until("both are parked", |daemon| daemon.status()["queue"]["parked"] == 2);
    look_twice(&mut daemon);
    let failed = daemon.json(&["failed"]);
    let reason = |title: &str| -> Vec<String> {
        let jobs = failed["jobs"].as_array().unwrap();
        let job = jobs.iter().find(|job| job["title"] == title).unwrap_or_else(|| panic!("{failed:#}"));
        assert_eq!((job["attempts"].as_u64(), job["failure_kind"].as_str()), (Some(1), Some("book")));
        job["last_error"].as_str().unwrap().lines().map(str::to_owned).collect()
    };
    let starts = |lines: &[String], expected: &[&str]| {
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        lines.iter().zip(expected).for_each(|(line, start)| assert!(line.starts_with(start), "{lines:?}"));
    };
    let broken = reason("Broken");
    starts(&broken, &["AZW3: ", "EPUB: ", "TXT: ", "CBZ: a comic"]);
    assert!(
        broken[0].contains("damaged") && broken[1].contains("damaged") && broken[2].contains("empty"),
        "{broken:?}"
    );
    let locked_reason = reason("Locked");
    starts(&locked_reason, &["EPUB: ", "CBR: a comic"]);
    assert!(locked_reason[0].contains("DRM"), "{locked_reason:?}");
    let log = daemon.log();
    assert_eq!((lines(&log, "'Broken': "), lines(&log, "'Locked': ")), (1, 1), "one line each: {log}");
    assert_eq!(failed["unreadable_total"], 0, "both were tried");

    // A spare format for the one, a good copy for the other.
    library.add_format(locked, &library.text("locked", SHIPS));
    daemon.until_indexed(1);
    library.add_format(id, &library.epub("good", "Broken", "C", BEES));
    daemon.until_indexed(2);
    assert_eq!(daemon.status()["queue"]["parked"], 0);
    assert_eq!(daemon.status()["queue"]["fallbacks"], 2);
}

#[test]
fn books_without_text_are_listed_with_the_reason_and_never_opened() {
    let library = CalibreLibrary::new();
    let comic = library.add(&junk(&library, "Comic.cbz"));
    library.add(&junk(&library, "Scan.djvu"));
    library.calibredb(&["add", "--empty", "--title", "On paper"]);
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let mut daemon = service(&library);
    daemon.start();
    daemon.until_indexed(1);
    look_twice(&mut daemon);
    let failed = daemon.json(&["failed"]);
    assert_eq!((&failed["total"], &failed["unreadable_total"]), (&0.into(), &2.into()), "{failed:#}");
    let said = text(&daemon.ctl(&["failed"]).stdout);
    for words in ["Without a file that can be read", "a comic", "DjVu", &format!("calibre {comic}")] {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
    assert!(text(&daemon.ctl(&["status"]).stdout).contains("2 that cannot be read"));
    let log = daemon.log();
    assert_eq!(lines(&log, "2 books have no file that can be read"), 1, "{log}");
    assert_eq!(lines(&log, "Comic") + lines(&log, "Scan"), 0, "{log}");
    assert_eq!(daemon.status()["queue"]["books"], 1, "no job, no attempt");

    library.add_format(comic, &library.text("comic", SHIPS));
    daemon.until_indexed(2);
    assert_eq!(daemon.json(&["failed"])["unreadable_total"], 1);
    let refused = daemon.ctl(&["ingest", junk(&library, "by hand.cbz").to_str().unwrap()]);
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("a comic"), "{}", text(&refused.stderr));
}

#[test]
fn a_library_that_goes_away_is_no_reason_for_another_format() {
    let library = CalibreLibrary::new();
    let id = library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    library.add_format(id, &library.text("hive", SHIPS));
    let mut daemon = service(&library);
    daemon.start();
    daemon.until_indexed(1);
    assert!(daemon.ctl(&["pause"]).status.success());
    assert!(daemon.ctl(&["ingest", "--force", &id.to_string()]).status.success());
    let away = library.path().with_file_name("away");
    fs::rename(library.path(), &away).unwrap();
    assert!(daemon.ctl(&["resume"]).status.success());
    daemon.until("it was tried", |daemon| daemon.log().contains("no attempt is spent"));
    fs::rename(&away, library.path()).unwrap();
    daemon.until_indexed(1);
    daemon.until("it was embedded again", |daemon| daemon.outcomes() == ["embedded", "embedded"]);
    assert_eq!(daemon.status()["queue"]["fallbacks"], 0);
    assert_eq!(lines(&daemon.log(), "is read instead"), 0);
}

#[test]
fn in_a_plain_folder_the_same_text_in_a_better_format_embeds_nothing() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("books");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("hive.md"), "").unwrap();
    fs::write(folder.join("hive.txt"), BEES).unwrap();
    fs::write(folder.join("comic.cbz"), "pages").unwrap();
    fs::write(folder.join("notes.xyz"), "no book").unwrap();
    let mut daemon = Daemon::new(&folder);
    daemon.start();
    daemon.until_indexed(1);
    daemon.until("the comic is listed", |daemon| daemon.json(&["failed"])["unreadable_total"] == 1);
    assert_eq!(lines(&daemon.log(), "indexed from TXT instead of MD"), 1, "{}", daemon.log());
    look_twice(&mut daemon);
    assert_eq!(daemon.outcomes(), ["embedded"]);
    fs::write(folder.join("hive.md"), BEES).unwrap();
    daemon.until("the mended one is read", |daemon| daemon.outcomes() == ["payload_only", "embedded"]);
    assert_eq!(daemon.status()["queue"]["fallbacks"], 0);
    let points = daemon.points();
    daemon.stop();
    assert_eq!((points_of_format(&daemon, "MD") as u64, points_of_format(&daemon, "TXT")), (points, 0));
}

#[test]
fn formats_that_cannot_be_read_are_refused_at_the_start() {
    let library = CalibreLibrary::new();
    let mut daemon = Daemon::new(&library.path());
    daemon.set("library.formats", "EPUB,cbz");
    for verb in [&[][..], &["check-config"]] {
        let output = daemon.run(verb);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("library.formats") && said.contains("a comic"), "{said}");
    }
}
