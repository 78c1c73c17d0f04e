"""OPA bundles as a source of policies: what is read, what is refused, and nothing half."""

from __future__ import annotations

import gzip
import subprocess
import tarfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.archives import ArchiveFault, unpacked
from proxy.engines.sources.bundles import Archive
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from tests.engines.archiving import entry, packed, tar

ROOT = Path(__file__).parents[2]
ALLOW = 'package callgate.call\n\ndecision := {"effect": "allow"}\n'


def bundle(files: dict[str, str | bytes], label: str = "b") -> Archive:
    return Archive(label, packed(files))


def manifest(**members: Any) -> str:
    return orjson.dumps(members).decode()


def faults_of(*sources: Path | Archive, **caps: Any) -> list[str]:
    with pytest.raises(PolicyFault) as caught:
        PolicySet.load(sources, **caps)
    return list(caught.value.faults)


def data_of(policy_set: PolicySet) -> Any:
    return orjson.loads(policy_set.data_json)


# -- what is read --------------------------------------------------------------------------------


def test_a_bundle_is_read_as_opa_reads_it() -> None:
    found = PolicySet.load(
        [
            bundle(
                {
                    "/.manifest": manifest(revision="r7", roots=["callgate", "reference"], rego_version=1),
                    "/call.rego": ALLOW,
                    "./callgate/roles/data.json": '{"support": {"tools": ["a"]}}',
                    "reference/cities/data.yaml": "[Berlin, Paris]",
                    "reference/other.json": "{",
                    "README.md": "no policy",
                    "call_test.rego": "package x",
                }
            )
        ]
    )
    assert [(m.name, m.path) for m in found.modules] == [("call.rego", "b/call.rego")]
    assert data_of(found) == {
        "callgate": {"roles": {"support": {"tools": ["a"]}}},
        "reference": {"cities": ["Berlin", "Paris"]},
    }
    assert found.labels == (("b", "r7"),)


async def test_what_opa_builds_of_the_starter_policies_decides_like_them(opa: str, tmp_path: Path) -> None:
    built = tmp_path / "policies.tar.gz"
    subprocess.run(
        [opa, "build", "-b", "policies", "-o", str(built), "-r", "v3"], cwd=ROOT, check=True, timeout=60
    )
    folder, found = PolicySet.load([ROOT / "policies"]), PolicySet.load([built])
    assert found.labels == ((str(built), "v3"),)
    assert data_of(found) == data_of(folder)
    assert {Path(m.name).name for m in found.modules} == {Path(m.name).name for m in folder.modules}
    question = {
        "call": {"id": "1", "name": "x", "arguments": {}},
        "principal": {"id": "a", "roles": ["none"]},
    }
    answers = [
        await RegorusEngine(policies).decide("callgate.call", question) for policies in (folder, found)
    ]
    assert answers[0] == answers[1]
    assert answers[0] is not None


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@given(
    files=st.dictionaries(
        st.lists(st.text("abc", min_size=1, max_size=90), min_size=1, max_size=2).map("/".join),
        st.binary(max_size=2000),
        max_size=5,
    )
)
def test_whatever_a_tar_writes_is_read(files: dict[str, bytes], format: int) -> None:
    assert unpacked(gzip.compress(tar(files.items(), format))) == files


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", ["x" * 300, "größe/" + "y" * 150, "a/" * 20 + "z"])
def test_long_and_foreign_names_are_read(name: str, format: int) -> None:
    files = {name: b"1", "after": b"2"}
    assert unpacked(gzip.compress(tar(files.items(), format))) == files


def test_folders_mean_nothing() -> None:
    content = tar([(entry("./", tarfile.DIRTYPE), b""), (entry("a/", tarfile.DIRTYPE), b""), ("a/b", b"1")])
    assert unpacked(gzip.compress(content)) == {"a/b": b"1"}


def test_the_revision_is_of_what_is_served() -> None:
    one = PolicySet.load([bundle({".manifest": manifest(revision="1"), "a.rego": ALLOW, "note": "x"})])
    other = PolicySet.load([bundle({".manifest": manifest(revision="2"), "a.rego": ALLOW})])
    third = PolicySet.load([bundle({"a.rego": ALLOW + "\n"})])
    assert one.revision == other.revision != third.revision


def test_the_same_files_have_one_revision_in_a_folder_and_in_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text(ALLOW)
    assert PolicySet.load([tmp_path]).revision == PolicySet.load([bundle({"a.rego": ALLOW})]).revision


# -- what is refused of a bundle -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({".manifest": manifest(rego_version=0)}, "rego_version is '0': only Rego version 1 is served"),
        ({".manifest": manifest(rego_version=True)}, "rego_version is 'True'"),
        ({".manifest": manifest(file_rego_versions={"/a.rego": 0})}, "'/a.rego' is of Rego version '0'"),
        ({".manifest": manifest(file_rego_versions=[1])}, "file_rego_versions is not an object"),
        ({".manifest": manifest(wasm=[{"entrypoint": "a", "module": "/policy.wasm"}])}, "WebAssembly"),
        ({"policy.wasm": "\0asm"}, "WebAssembly: build it with `opa build --target rego`"),
        ({"plan.json": "{}", "data.json": "{}", "a.rego": None}, "holds a plan in place of policies"),
        ({"patch.json": "{}"}, "it is a delta bundle"),
        ({".manifest": "{"}, ".manifest: not valid JSON"),
        ({".manifest": "[]"}, ".manifest: not an object"),
        ({".manifest": '{"revision": "a", "revision": "b"}'}, ".manifest: duplicate key 'revision'"),
        ({".manifest": manifest(revision="a\nb")}, "not one line of printable text"),
        ({".manifest": manifest(revision=3)}, "a text as its revision"),
        ({".manifest": manifest(roots="a")}, "roots is not a list of paths"),
        ({".manifest": manifest(roots=["a/b", "/a/"])}, "the roots overlap: a/b, a"),
        ({"x/.manifest": "{}"}, "'x/.manifest' is a second manifest"),
        ({"a.rego": None}, "it holds neither policies nor data"),
        ({".signatures.json": "{}"}, "it is signed, and there is no key to verify it with"),
    ],
)
def test_a_bundle_that_cannot_be_served_says_why(files: dict[str, str | None], fault: str) -> None:
    every: dict[str, str | None] = {"a.rego": ALLOW, **files}
    kept = {name: text for name, text in every.items() if text is not None}
    (found,) = faults_of(Archive("https://example.com/b.tar.gz", packed({**kept})))
    assert found.startswith("https://example.com/b.tar.gz: ")
    assert fault in found


def test_a_bundle_of_rego_v0_that_opa_builds_is_refused(opa: str, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a.rego").write_text("package a\n\np { true }\n")
    built = tmp_path / "b.tar.gz"
    command = [opa, "build", "--v0-compatible", "-b", "old", "-o", str(built)]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    (fault,) = faults_of(built)
    assert "only Rego version 1 is served: rewrite it with `opa fmt" in fault


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        (
            {"data.json": '{"other": 1}'},
            "b/data.json: data.other is outside the bundle's roots (callgate/call)",
        ),
        ({"other/data.json": "1"}, "b/other/data.json: data.other is outside"),
        ({"callgate/data.json": '{"cal": {}}'}, "data.callgate.cal is outside"),
        ({"data.json": '{"callgate": 1}'}, "data.callgate is outside"),
        ({"callgate/call/data.json": "[1"}, "b/callgate/call/data.json:1: not valid JSON"),
        ({"data.json": "[1]"}, "b/data.json: policy data is one mapping"),
        ({"a.rego": b"\xff"}, "b/a.rego: not UTF-8 text"),
    ],
)
def test_what_is_wrong_inside_names_the_file(files: dict[str, str | bytes], fault: str) -> None:
    roots = manifest(roots=["callgate/call"])
    (found,) = faults_of(bundle({".manifest": roots, "a.rego": ALLOW, **files}))
    assert fault in found


def test_data_inside_the_roots_are_taken() -> None:
    files: dict[str, str | bytes] = {
        ".manifest": manifest(roots=["a/b", "c"]),
        "data.json": '{"a": {"b": 1}}',
        "c/data.json": "[2]",
    }
    assert data_of(PolicySet.load([bundle(files)])) == {"a": {"b": 1}, "c": [2]}


@pytest.mark.parametrize("package", ["callgate.calls", "callgate", 'callgate["call.x"]', "other"])
def test_a_package_outside_the_roots_is_refused(package: str) -> None:
    files: dict[str, str | bytes] = {
        ".manifest": manifest(roots=["callgate/call"]),
        "a.rego": f"package {package}\n\nx := 1\n",
    }
    with pytest.raises(PolicyFault, match=r"b/a\.rego: package .* is outside the bundle's roots"):
        RegorusEngine(PolicySet.load([bundle(files)]))


def test_packages_below_the_roots_are_served() -> None:
    files: dict[str, str | bytes] = {
        ".manifest": manifest(roots=["callgate/call"]),
        "a.rego": ALLOW,
        "b.rego": "package callgate.call.more\n\nx := 1\n",
    }
    assert RegorusEngine(PolicySet.load([bundle(files)])).defines("callgate.call")


# -- several sources -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        (None, None, "(everything) overlaps one (everything)"),
        (["a"], None, "(everything) overlaps one (a)"),
        (["a", "b/c"], ["d", "b"], "(b) overlaps one (b/c)"),
        (["a"], ["a"], "(a) overlaps one (a)"),
    ],
)
def test_roots_of_two_bundles_do_not_overlap(
    one: list[str] | None, other: list[str] | None, shown: str
) -> None:
    bundles = [
        bundle({".manifest": manifest(roots=roots), "data.json": "{}"}, label)
        for label, roots in (("b1", one), ("b2", other))
    ]
    (fault,) = faults_of(*bundles)
    assert fault.startswith(f"b2: its root {shown} of b1: give each bundle roots of its own")


def test_bundles_beside_one_another_and_a_folder_are_one_set(tmp_path: Path) -> None:
    (tmp_path / "call.rego").write_text(ALLOW)
    one = bundle({".manifest": manifest(roots=["a"]), "a/data.json": "1"}, "b1")
    other = bundle({".manifest": manifest(roots=["ab"]), "ab/data.json": "2"}, "b2")
    found = PolicySet.load([tmp_path, one, other])
    assert data_of(found) == {"a": 1, "ab": 2}
    assert len(found.modules) == 1


def test_a_folder_and_a_bundle_that_define_one_value_are_both_named(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("a: {b: 1}")
    (fault,) = faults_of(tmp_path, bundle({"a/data.json": '{"b": 2}'}))
    assert fault == f"b/a/data.json: data.a.b is already defined in {tmp_path}/data.yaml"


def test_a_bundle_in_a_folder_is_a_file_like_others_and_one_that_is_named_is_read(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_bytes(packed({"a.rego": ALLOW}))
    assert PolicySet.load([tmp_path]).modules == ()
    assert len(PolicySet.load([tmp_path / "b.tar.gz"]).modules) == 1


def test_a_bundle_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    assert faults_of(tmp_path / "no.tar.gz") == [f"{tmp_path}/no.tar.gz: No such file or directory"]


# -- hostile archives ----------------------------------------------------------------------------


def refused(content: bytes, **bounds: int) -> str:
    with pytest.raises(ArchiveFault) as caught:
        unpacked(content, **bounds)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("../evil.rego", "'../evil.rego' is no plain path"),
        ("/../evil.rego", "is no plain path"),
        ("a/../../evil.rego", "is no plain path"),
        ("//etc/passwd", "is no plain path"),
        ("a//b", "is no plain path"),
        ("./../a", "is no plain path"),
        ("a/./b", "is no plain path"),
        ("", "is no plain path"),
        ("a\nb.rego", "not printable"),
        ("a\x1b[2Jb.rego", "not printable"),
        ("x" * 2000, "too long"),
        ("a/" * 30 + "b", "too deep"),
    ],
)
def test_names_are_plain_paths(name: str, fault: str) -> None:
    assert fault in refused(gzip.compress(tar([(name, b"")])))


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (tarfile.SYMTYPE, "'a' is a symbolic link"),
        (tarfile.LNKTYPE, "'a' is a hard link"),
        (tarfile.CHRTYPE, "'a' is a device"),
        (tarfile.BLKTYPE, "'a' is a device"),
        (tarfile.FIFOTYPE, "'a' is a pipe"),
        (tarfile.GNUTYPE_SPARSE, "'a' is a sparse file"),
        (tarfile.CONTTYPE, "'a' is neither a file nor a folder"),
    ],
)
def test_only_files_and_folders_are_taken(kind: bytes, fault: str) -> None:
    assert fault in refused(gzip.compress(tar([(entry("a", kind, linkname="/etc/passwd"), b"")])))


@pytest.mark.parametrize("again", ["a", "/a", "./a"])
def test_a_name_is_there_once(again: str) -> None:
    assert "'a' is in it twice" in refused(gzip.compress(tar([("a", b"1"), (again, b"1")])))


def test_a_name_that_is_not_utf8_is_refused() -> None:
    content = tar([("caf\udce9.rego", b"")], tarfile.GNU_FORMAT)
    assert refused(gzip.compress(content)) == "the name b'caf\\xe9.rego' is not UTF-8 text"


def test_a_gzip_bomb_is_not_unpacked() -> None:
    squeezing = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeezing.compress(bytes(1 << 20)) for _ in range(200)) + squeezing.flush()
    assert len(bomb) < 1 << 20
    assert refused(bomb) == f"larger than {64 << 20} bytes when it is unpacked"
    tracemalloc.start()
    try:
        assert refused(bomb, max_bytes=1 << 20) == f"larger than {1 << 20} bytes when it is unpacked"
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("bounds", "fault"),
    [
        ({"max_bytes": 9_000}, "larger than 9000 bytes when it is unpacked"),
        ({"max_file_bytes": 99}, "'a' is larger than 99 bytes"),
        ({"max_entries": 2}, "holds more than 2 entries"),
    ],
)
def test_everything_has_a_bound(bounds: dict[str, int], fault: str) -> None:
    content = gzip.compress(tar([("a", b"x" * 100), (entry("b", tarfile.DIRTYPE), b""), ("c", b"")]))
    assert refused(content, **bounds) == fault
    exact = {name: value + 1 if name != "max_bytes" else 10_240 for name, value in bounds.items()}
    assert unpacked(content, **exact).keys() == {"a", "c"}


def test_a_cut_archive_is_refused_wherever_it_is_cut() -> None:
    whole = packed({"a.rego": ALLOW, "data.json": "{}"})
    for end in range(len(whole)):
        assert "not a whole gzip file" in refused(whole[:end])


def test_a_cut_tar_is_refused_wherever_it_is_cut() -> None:
    plain = tar([("a", b"1" * 600)])
    for end in (0, 100, 512, 1000, 1536):
        assert "not a whole tar archive" in refused(gzip.compress(plain[:end]))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not a whole gzip file"),
        (b"PK\x03\x04", "not a whole gzip file"),
        (gzip.compress(b"plain text" * 100, mtime=0), "not a tar archive"),
        (packed({"a": "1"}) + packed({"a": "2"}), "something follows the end of the gzip file"),
        (
            gzip.compress(tar([("a", b"1")]) + tar([("b", b"2")]), mtime=0),
            "something follows the end of the tar",
        ),
    ],
)
def test_what_is_no_archive_or_more_than_one_is_refused(content: bytes, fault: str) -> None:
    assert fault in refused(content)


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({"path": "../evil"}, "is no plain path"),
        ({"size": "5"}, "changes sizes"),
        ({"size": "-1"}, "changes sizes"),
        ({"GNU.sparse.major": "1"}, "changes sizes"),
    ],
)
def test_extended_headers_smuggle_nothing(headers: dict[str, str], fault: str) -> None:
    content = tar([(entry("a", pax_headers=headers), b"12345")])
    assert fault in refused(gzip.compress(content))


@pytest.mark.parametrize(
    "body", [b"x", b"9 a=b\n", b"99999999 a=b\n", b"0 a=b\n", b"6 a=b", b"7 abcd\n", b"1" * 600]
)
def test_an_extended_header_that_cannot_be_read_is_refused(body: bytes) -> None:
    content = tar([(entry("x", tarfile.XHDTYPE), body), ("a", b"")], tarfile.USTAR_FORMAT)
    assert refused(gzip.compress(content)) == "an extended header cannot be read"


def test_an_extended_header_for_all_names_nothing() -> None:
    content = tar([(entry("x", tarfile.XGLTYPE), b"10 path=b\n"), ("a", b"")], tarfile.USTAR_FORMAT)
    assert refused(gzip.compress(content)) == "an extended header gives all entries one name"
    comment = tar([(entry("x", tarfile.XGLTYPE), b"13 comment=b\n"), ("a", b"")], tarfile.USTAR_FORMAT)
    assert unpacked(gzip.compress(comment)) == {"a": b""}


@given(at=st.integers(0, 511), value=st.integers(0, 255))
def test_a_header_that_was_changed_is_refused_or_means_the_same(at: int, value: int) -> None:
    plain = bytearray(tar([("a.rego", b"12345")], tarfile.USTAR_FORMAT))
    before, plain[at] = plain[at], value
    try:
        found = unpacked(gzip.compress(bytes(plain)))
    except ArchiveFault:
        return
    assert before == value or 148 <= at < 156
    assert found == {"a.rego": b"12345"}


@given(st.binary(max_size=3000))
def test_noise_is_refused_and_never_breaks(noise: bytes) -> None:
    for content in (noise, gzip.compress(noise)):
        try:
            assert unpacked(content) == {}
        except ArchiveFault:
            continue


# -- bounds on what is served --------------------------------------------------------------------


def test_a_file_in_a_bundle_may_have_as_many_bytes_as_elsewhere() -> None:
    files: dict[str, str | bytes] = {"a.rego": "#" * 100, "data.json": "{}" + " " * 98}
    PolicySet.load([bundle(files)], max_rego_bytes=100, max_data_bytes=100)
    assert faults_of(bundle(files), max_rego_bytes=99) == [
        "b/a.rego: larger than 99 bytes, the most that one such file may have"
    ]
    assert faults_of(bundle(files), max_data_bytes=99) == [
        "b/data.json: larger than 99 bytes, the most that one such file may have"
    ]


def test_all_sources_together_may_have_so_many_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}' + " " * 92)
    one = bundle({"b/data.json": "1" + " " * 99})
    PolicySet.load([tmp_path, one], max_set_bytes=200)
    assert faults_of(tmp_path, one, max_set_bytes=199) == [
        "the policies and their data together: larger than 199 bytes, counted up to b/b/data.json"
    ]


def test_aliases_do_not_make_more_of_a_file_than_it_may_be() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
    (fault,) = faults_of(bundle({"data.yaml": f"l0: &l0 [{'x' * 100}]\n{levels}"}))
    assert fault == f"b/data.yaml: larger than {16 << 20} bytes when its aliases are written out"
