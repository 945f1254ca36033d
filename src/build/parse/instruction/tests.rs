use proptest::prelude::*;

use super::*;
use crate::build::parse::{MountKind, Sharing};

fn kinds(text: &str) -> Vec<Kind> {
    parse(text).unwrap().instructions.into_iter().map(|one| one.kind).collect()
}

fn one(text: &str) -> Kind {
    kinds(&format!("FROM a\n{text}")).remove(1)
}

fn error(text: &str) -> ParseError {
    parse(&format!("FROM a\n{text}")).unwrap_err()
}

#[test]
fn stages_and_arguments() {
    let found = kinds("ARG V=1 W\nfrom --platform=linux/amd64 x:$V as Build-1\nFROM build-1");
    let arg = |name: &str, default: Option<&str>| Arg { name: name.to_owned(), default: default.map(str::to_owned) };
    assert_eq!(found[0], Kind::Arg(vec![arg("V", Some("1")), arg("W", None)]));
    let Kind::From(from) = &found[1] else { panic!() };
    assert_eq!((from.image.as_str(), from.name.as_deref()), ("x:$V", Some("build-1")));
    assert_eq!(from.platform.as_deref(), Some("linux/amd64"));
    assert!(parse("RUN x").is_err() && parse("").is_err() && parse("ARG x").is_err());
    assert!(parse("FROM a AS 1x").is_err() && parse("FROM a b").is_err());
}

#[test]
fn a_misspelt_instruction_gets_a_suggestion() {
    let error = error("COPPY a b");
    assert_eq!((error.line, error.help.as_deref()), (2, Some("did you mean `COPY`?")));
    let flag = parse("FROM a\nCOPY --form=b c d").unwrap_err();
    assert_eq!(flag.help.as_deref(), Some("did you mean `--from`?"));
}

#[test]
fn pairs_of_both_forms() {
    let pairs =
        |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    assert_eq!(one(r#"ENV A=1 B="x y" C=a\ b"#), Kind::Env(pairs(&[("A", "1"), ("B", "\"x y\""), ("C", "a\\ b")])));
    assert_eq!(one("ENV A the  rest = x"), Kind::Env(pairs(&[("A", "the  rest = x")])));
    assert!(error("ENV A").message.contains("no value"));
    assert!(error("LABEL a=b c").message.contains("NAME=VALUE"));
}

#[test]
fn commands_are_lists_or_text() {
    assert_eq!(one("CMD [\"a\", \"b\"]"), Kind::Cmd(Command::Exec(vec!["a".into(), "b".into()])));
    assert_eq!(one("CMD [ -f x ]"), Kind::Cmd(Command::Shell("[ -f x ]".into())));
    assert!(error("RUN [1]").message.contains("texts"));
    assert!(error("SHELL sh -c").message.contains("list"));
    assert!(error("RUN").message.contains("command"));
}

#[test]
fn copies_with_flags_and_documents() {
    let text = "COPY --chown=1:2 --exclude=a --exclude=b --link x <<E /d/\nhi\nE";
    let Kind::Copy(copy) = one(text) else { panic!() };
    assert_eq!((copy.sources.len(), copy.documents.len(), copy.exclude.len()), (1, 1, 2));
    assert!(copy.link && copy.chown.as_deref() == Some("1:2"));
    assert!(error("COPY a").message.contains("destination"));
    assert!(error("COPY --from a b c").message.contains("needs a value"));
    assert!(error("ADD --from=a b c").message.contains("--from"));
}

#[test]
fn mounts_of_every_type() {
    let Kind::Run(run) = one("RUN --mount=type=cache,target=/c,sharing=locked --mount=from=x,dst=/$A cat") else {
        panic!()
    };
    let cache = run.mounts[0].resolve(&mut |text| Ok(text.to_owned())).unwrap();
    assert_eq!((cache.kind, cache.id.as_str(), cache.sharing), (MountKind::Cache, "/c", Sharing::Locked));
    let bind = run.mounts[1].resolve(&mut |text| Ok(text.replace("$A", "a"))).unwrap();
    assert_eq!((bind.target.as_str(), bind.from.as_deref(), bind.read_only), ("/a", Some("x"), true));
    let Kind::Run(run) = one("RUN --mount=type=secret,id=k x") else { panic!() };
    assert_eq!(run.mounts[0].resolve(&mut |text| Ok(text.to_owned())).unwrap().target, "/run/secrets/k");
    for bad in [
        "type=x,target=/a",
        "type=bind",
        "type=cache,target=/a,mode=9",
        "from=$X,target=/a",
        "type=tmpfs,target=/a,id=b",
    ] {
        assert!(parse(&format!("FROM a\nRUN --mount={bad} true")).is_err(), "{bad}");
    }
}

#[test]
fn health_checks() {
    let Kind::Healthcheck(health) = one("HEALTHCHECK --interval=1m30s --retries=2 CMD a b") else { panic!() };
    assert_eq!((health.interval, health.retries), (90_000_000_000, 2));
    assert_eq!(health.command, Some(Command::Shell("a b".into())));
    assert!(error("HEALTHCHECK CMD").message.contains("no command"));
    assert!(error("HEALTHCHECK --interval=5 CMD x").message.contains("duration"));
}

#[test]
fn triggers_keep_their_documents() {
    let Kind::Onbuild(text) = one("ONBUILD RUN <<E\nx\nE") else { panic!() };
    assert_eq!(text, "RUN <<E\nx\nE");
    let trigger = parse_trigger(&text, 7).unwrap();
    assert!(matches!(trigger.kind, Kind::Run(ref run) if run.heredocs.len() == 1) && trigger.first == 7);
    for bad in ["ONBUILD FROM x", "ONBUILD ONBUILD RUN x", "ONBUILD NOPE"] {
        assert!(parse(&format!("FROM a\n{bad}")).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    /// Pieces of the language in any order, which random text would hardly hit.
    #[test]
    fn no_mixture_of_the_language_makes_it_panic(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "FROM a", "RUN ", "COPY ", "ADD ", "ENV ", "ARG ", "LABEL ", "ONBUILD ", "HEALTHCHECK ", "SHELL ", "EXPOSE ", "VOLUME ",
        "--from=", "--mount=", "type=cache,", "target=/x", "<<EOF", "<<-'E'", "EOF", "E", "\n", "\\\n", "\r\n", "#", " ", "\t", "[",
        "]", "\"", "'", ",", "=", "$", "${", "}", ":-", "%", "/", "\\", "`", "# escape=`\n", "ä", "\u{feff}", "a", "0", "-",
    ]), 0..40)) {
        let _ = parse(&pieces.concat());
    }
}
