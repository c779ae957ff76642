//! Every file that the fuzzer has ever stumbled over (tests/fuzz/regressions), read again; and every target with its own
//! examples, so that the targets themselves are known to work. Must never run the fuzzer.

use std::path::Path;

use crate::inputs;

#[test]
fn findings_of_the_fuzzer_stay_fixed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let light = folder.join("regressions");
    let root = if light.is_dir() { light } else { folder.join("tests/fuzz/regressions") };
    for entry in std::fs::read_dir(&root).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let target = folder.file_name().unwrap().to_string_lossy().into_owned();
        for file in std::fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            println!("{}", path.display());
            inputs::run(&target, &std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn the_fuzz_targets_read_their_examples() {
    for target in inputs::targets() {
        let examples = inputs::examples(target);
        assert!(!examples.is_empty(), "{target} has no examples");
        examples.iter().for_each(|example| inputs::run(target, example));
    }
}
