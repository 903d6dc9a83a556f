//! What readers find at each moment, and after an export that was killed.

use std::{
    cell::Cell,
    fs,
    io::ErrorKind,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use tempfile::TempDir;

use super::{Done, ECDSA, Files, Options, Pair, Place, RSA, disk::faults::before_each_step};

const IDS: [&str; 2] = ["0199d4e7c8f07a3e8e6f3c0e1b2a4d5f", "0199d4e7c8f07a3e8e6f3c0e1b2a4d60"];

fn files(letter: &str) -> Files {
    let pair = Pair { key: format!("key {letter}").into_bytes().into(), chain: format!("chain {letter}").into_bytes() };
    Files { pair, bundle: Vec::new() }
}

fn export(directory: &Path, letter: &str, options: &Options, force: bool) -> anyhow::Result<Done> {
    export_of(IDS[0], directory, letter, options, force)
}

fn export_of(certificate_id: &str, directory: &Path, letter: &str, options: &Options, force: bool) -> anyhow::Result<Done> {
    let place = Place::find(directory, certificate_id, options, force)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { place.claim().await?.write(&files(letter)) })
}

fn text(path: &Path) -> Option<String> {
    match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The letter of the pair that is read through the links of the directory, or `None` if there is neither file.
fn letter(directory: &Path) -> Option<String> {
    let (chain, key) = (text(&directory.join("fullchain.pem")), text(&directory.join("privkey.pem")));
    let letter = key.as_ref().map(|key| key.strip_prefix("key ").unwrap().to_owned());
    assert_eq!(chain, letter.as_ref().map(|letter| format!("chain {letter}")), "with {key:?}");
    letter
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Ends an export before its first step, its second and so on, and repeats it each time. At each step a reader finds a pair that fits.
fn kill_at_each_step(prepare: impl Fn(&Path), before: Option<&'static str>, force: bool, options: &Options) {
    let mut last_step = 0;
    loop {
        let root = TempDir::new().unwrap();
        let directory = root.path().join("out");
        prepare(&directory);
        let (seen, watched) = (Rc::new(Cell::new(0)), directory.clone());
        let counted = seen.clone();
        let is_seen_by_readers = move || {
            let found = letter(&watched);
            assert!(found.as_deref() == before || found.as_deref() == Some("new"), "{found:?}");
            counted.set(counted.get() + 1);
            counted.get() <= last_step
        };
        let done = before_each_step(is_seen_by_readers, || export(&directory, "new", options, force));
        let found = letter(&directory);
        assert!(found.as_deref() == before || found.as_deref() == Some("new"), "killed at step {last_step}: {found:?}");
        let is_done = done.is_ok();
        if !is_done {
            export(&directory, "new", options, force).unwrap();
        }
        assert_eq!(letter(&directory).as_deref(), Some("new"), "repeated after step {last_step}");
        let place = Place::find(&directory, IDS[0], options, false).unwrap();
        assert!(place.unchanged_files().unwrap().is_some(), "there is nothing left to do after step {last_step}");
        let versions: Vec<_> = names(&directory.join(".csrd")).into_iter().filter(|name| name.parse::<u64>().is_ok()).collect();
        assert!(versions.len() <= 2, "{versions:?}");
        if is_done {
            assert!(last_step >= 10, "it has more steps than {last_step}");
            return;
        }
        last_step += 1;
    }
}

fn old_layout(directory: &Path) {
    fs::create_dir(directory).unwrap();
    fs::write(directory.join(".csrd"), format!("{}\n", IDS[0])).unwrap();
    fs::write(directory.join("privkey.pem"), "key old").unwrap();
    fs::write(directory.join("fullchain.pem"), "chain old").unwrap();
}

#[test]
fn a_first_export_that_is_killed_is_repaired_by_the_next() {
    kill_at_each_step(|_| {}, None, false, &Options::default());
}

#[test]
fn an_export_that_is_killed_leaves_the_pair_before_or_the_new_one() {
    kill_at_each_step(
        |directory| assert_eq!(export(directory, "old", &Options::default(), false).unwrap(), Done::Wrote),
        Some("old"),
        false,
        &Options::default(),
    );
}

#[test]
fn a_directory_of_the_layout_before_is_upgraded_without_a_gap() {
    kill_at_each_step(old_layout, Some("old"), false, &Options::default());
    let root = TempDir::new().unwrap();
    let directory = root.path().join("out");
    old_layout(&directory);
    fs::write(directory.join(".csrd.tmp"), "half a private key").unwrap();
    assert_eq!(export(&directory, "new", &Options::default(), false).unwrap(), Done::Wrote);
    assert_eq!(names(&directory), [".csrd", "current", "fullchain.pem", "privkey.pem"]);
}

#[test]
fn forced_over_links_of_somebody_else_readers_see_no_gap_either() {
    let foreign = |directory: &Path| {
        let archive = directory.with_file_name("archive");
        fs::create_dir(&archive).unwrap();
        fs::create_dir(directory).unwrap();
        fs::write(archive.join("key"), "key old").unwrap();
        fs::write(archive.join("chain"), "chain old").unwrap();
        symlink("../archive/key", directory.join("privkey.pem")).unwrap();
        symlink(archive.join("chain"), directory.join("fullchain.pem")).unwrap();
    };
    kill_at_each_step(foreign, Some("old"), true, &Options::default());
}

/// What an export without options finds to be remembered, and whose the directory is.
fn remembered(directory: &Path) -> Option<(String, Option<String>, bool)> {
    let options = Options::default();
    let place = Place::find(directory, IDS[0], &options, true).unwrap();
    let found = place.left_by_export(&place.way.directory().unwrap()?).unwrap()?;
    Some((found.certificate_id, found.exec, found.combined))
}

#[test]
fn what_is_remembered_is_true_of_the_pair_that_readers_find_at_each_moment() {
    let (old, new) = (Options { exec: Some("old".to_owned()), ..Options::default() }, || Options {
        exec: Some("new".to_owned()),
        combined: Some(true),
        ..Options::default()
    });
    for is_first in [false, true] {
        for last_step in 0.. {
            let root = TempDir::new().unwrap();
            let directory = root.path().join("out");
            if !is_first {
                export(&directory, "old", &old, false).unwrap();
            }
            let check = move |directory: &Path| match letter(directory).as_deref() {
                Some("new") => assert_eq!(remembered(directory), Some((IDS[1].to_owned(), Some("new".to_owned()), true))),
                Some(_) => assert_eq!(remembered(directory), Some((IDS[0].to_owned(), Some("old".to_owned()), false))),
                // Between the switch and the end of a first export its links may be missing, and never before.
                None => assert!(is_first && remembered(directory).is_none(), "{:?}", remembered(directory)),
            };
            let (seen, watched) = (Cell::new(0), directory.clone());
            let goes_on = move || {
                check(&watched);
                seen.set(seen.get() + 1);
                seen.get() <= last_step
            };
            let done = before_each_step(goes_on, || export_of(IDS[1], &directory, "new", &new(), !is_first));
            check(&directory);
            if done.is_ok() {
                assert!(last_step >= 10, "it has more steps than {last_step}");
                break;
            }
            // Without --force it is for the other certificate until the switch, and from then on for the new one alone.
            let is_new = letter(&directory).as_deref() == Some("new");
            let other = export(&directory, "other", &Options::default(), false);
            assert_eq!(other.is_ok(), !is_new, "killed at step {last_step}: {other:?}");
        }
    }
}

#[test]
fn an_export_that_is_refused_for_a_directory_among_its_files_changes_nothing() {
    let combined = || Options { combined: Some(true), ..Options::default() };
    for name in ["privkey.pem", "fullchain.pem", "combined.pem", "current", ".csrd/export.json", ".csrd/export.json.new", ".csrd/link.new"]
    {
        for is_first in [true, false] {
            let root = TempDir::new().unwrap();
            let directory = root.path().join("out");
            fs::create_dir(&directory).unwrap();
            if is_first {
                fs::create_dir(directory.join(".csrd")).unwrap();
            } else {
                export(&directory, "old", &combined(), false).unwrap();
                let _ = fs::remove_file(directory.join(name));
            }
            fs::create_dir(directory.join(name)).unwrap();
            fs::write(directory.join(name).join("kept"), "precious").unwrap();
            let all = || (names(&directory), names(&directory.join(".csrd")), fs::read_link(directory.join("privkey.pem")).ok());
            let before = all();
            let error = format!("{:#}", export(&directory, "new", &combined(), true).unwrap_err());
            assert!(error.contains(&directory.join(name).display().to_string()) && error.contains("is a directory"), "{error}");
            assert_eq!(all(), before, "{name}");
            fs::remove_dir_all(directory.join(name)).unwrap();
            export(&directory, "new", &combined(), true).unwrap();
            assert_eq!(letter(&directory).as_deref(), Some("new"));
        }
    }
}

#[test]
fn what_was_changed_from_outside_is_put_right() {
    let root = TempDir::new().unwrap();
    let directory = root.path().join("out");
    let options = Options { mode: Some("0640".parse().unwrap()), ..Options::default() };
    export(&directory, "a", &options, false).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for (name, changed, right) in [
        ("", 0o700, 0o750),
        (".csrd", 0o700, 0o750),
        ("current", 0o700, 0o750),
        ("current", 0o755, 0o750),
        ("privkey.pem", 0o644, 0o640),
        ("privkey.pem", 0o600, 0o640),
        ("privkey.pem", 0o4640, 0o640),
        ("fullchain.pem", 0o660, 0o640),
    ] {
        let path = directory.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(changed)).unwrap();
        let place = Place::find(&directory, IDS[0], &options, false).unwrap();
        assert!(place.unchanged_files().unwrap().is_none(), "{name} {changed:o}");
        export(&directory, "a", &Options::default(), false).unwrap();
        assert_eq!(mode(&path), right, "{name} {changed:o}");
        assert!(place.unchanged_files().unwrap().is_some(), "{name} {changed:o}");
    }
    // The operator may let more people into the directory than the files need.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Place::find(&directory, IDS[0], &options, false).unwrap().unchanged_files().unwrap().is_some());
}

#[test]
fn the_group_that_a_directory_hands_on_is_kept() {
    let root = TempDir::new().unwrap();
    let directory = root.path().join("out");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o2755)).unwrap();
    let options = Options { mode: Some("0640".parse().unwrap()), ..Options::default() };
    export(&directory, "a", &options, false).unwrap();
    assert_eq!(fs::metadata(directory.join("current")).unwrap().permissions().mode() & 0o7777, 0o2750);
    assert!(Place::find(&directory, IDS[0], &options, false).unwrap().unchanged_files().unwrap().is_some());
}

#[test]
fn readers_beside_two_hundred_switches_find_pairs_that_fit() {
    let root = TempDir::new().unwrap();
    let directory = root.path().join("out");
    export(&directory, "a", &Options::default(), false).unwrap();
    let is_over = AtomicBool::new(false);
    let current = || fs::read_link(directory.join("current")).unwrap();
    let number = |link: &Path| link.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let read = |at: &Path| Some((text(&at.join("fullchain.pem"))?, text(&at.join("privkey.pem"))?));
    let fit = |(chain, key): (String, String)| assert_eq!(chain.strip_prefix("chain "), key.strip_prefix("key "));
    let (mut resolved, mut by_links) = (0_u32, 0_u32);
    thread::scope(|scope| {
        let resolving = scope.spawn(|| {
            let mut pairs = 0;
            while !is_over.load(Ordering::Relaxed) {
                let version = current();
                match read(&directory.join(&version)) {
                    Some(pair) => fit(pair),
                    // It is kept until the export after the next.
                    None => assert!(number(&current()) >= number(&version) + 2),
                }
                pairs += 1;
            }
            pairs
        });
        let by_their_names = scope.spawn(|| {
            let mut pairs = 0;
            while !is_over.load(Ordering::Relaxed) {
                // Two files are opened one after the other: if there was a switch meanwhile, once more.
                let before = current();
                let pair = read(&directory);
                if current() == before {
                    fit(pair.unwrap());
                    pairs += 1;
                }
            }
            pairs
        });
        for round in 0..200 {
            assert_eq!(export(&directory, ["b", "a"][round % 2], &Options::default(), false).unwrap(), Done::Wrote);
        }
        is_over.store(true, Ordering::Relaxed);
        (resolved, by_links) = (resolving.join().unwrap(), by_their_names.join().unwrap());
    });
    assert!(resolved > 0 && by_links > 0);
}

#[test]
fn what_lies_where_others_can_change_it_is_refused_and_nothing_is_made() {
    let root = TempDir::new().unwrap();
    let open = root.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::create_dir(open.join("below")).unwrap();
    let refused = |path: &Path| {
        for force in [false, true] {
            let error = format!("{:#}", export(path, "new", &Options::default(), force).unwrap_err());
            assert!(error.contains("others can change what is in"), "{error}");
        }
    };
    symlink("open/below", root.path().join("link")).unwrap();
    for mode in [0o777, 0o775, 0o757] {
        fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
        for path in ["open", "open/below", "open/below/new", "open/new/new", "link/new", "open/../open/new", "open/.."] {
            refused(&root.path().join(path));
        }
        assert_eq!((names(&open), names(&open.join("below"))), (vec!["below".to_owned()], Vec::new()));
    }
    // As in /tmp: others cannot rename what is not theirs.
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    export(&root.path().join("link/new"), "new", &Options::default(), false).unwrap();
    assert_eq!(letter(&open.join("below/new")).as_deref(), Some("new"));
    // The same holds for what csrd keeps there.
    let inner = open.join("below/new/.csrd");
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o777)).unwrap();
    refused(&open.join("below/new"));
}

#[test]
fn what_belongs_to_a_set_lies_beside_the_combined_file_and_goes_when_it_belongs_there_no_more() {
    let root = TempDir::new().unwrap();
    let directory = root.path().join("out");
    let combined = Options { combined: Some(true), ..Options::default() };
    let of_set = |letter: &str, names: &[&'static str]| {
        let bundle = names.iter().map(|name| (*name, format!("{name} {letter}").into_bytes().into())).collect();
        Files { bundle, ..files(letter) }
    };
    let write = |files: &Files, options: &Options| {
        let place = Place::find(&directory, IDS[0], options, false).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { place.claim().await.unwrap().write(files).unwrap() })
    };
    let found = || Place::find(&directory, IDS[0], &Options::default(), false).unwrap().unchanged_files().unwrap().unwrap();
    let both = of_set("old", &[RSA, ECDSA]);
    assert_eq!(write(&both, &combined), Done::Wrote);
    assert_eq!(write(&both, &Options::default()), Done::Nothing);
    assert!(found() == both);
    assert_eq!(text(&directory.join("site.pem.ecdsa")).as_deref(), Some("site.pem.ecdsa old"));
    assert_eq!(fs::metadata(directory.join("site.pem.rsa")).unwrap().permissions().mode() & 0o777, 0o600);
    // HAProxy takes a file of this name before the others.
    assert!(!directory.join("site.pem").exists());

    let one = of_set("old", &[RSA]);
    assert_eq!(write(&one, &Options::default()), Done::Wrote, "the other one is there no more");
    assert!(found() == one && directory.join("site.pem.ecdsa").symlink_metadata().is_err());
    assert_eq!(write(&files("old"), &Options { combined: Some(false), ..Options::default() }), Done::Wrote);
    assert!(found() == files("old") && directory.join("site.pem.rsa").symlink_metadata().is_err());
}

#[test]
fn a_file_of_a_set_that_no_export_wrote_is_somebody_elses() {
    let root = TempDir::new().unwrap();
    let directory = root.path().join("out");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("site.pem.rsa"), "somebody's").unwrap();
    assert!(export(&directory, "new", &Options::default(), false).is_err());
    assert_eq!(text(&directory.join("site.pem.rsa")).as_deref(), Some("somebody's"));
}
