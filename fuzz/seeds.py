"""Writes the seeds of the corpus: small honest files from the fixtures of the crates, and files made to harm.

    python scripts/fixtures.py fuzz

Writes `corpus/{target}/{honest,hostile}-*`, the same bytes each time. What lies there under other names was found by the
fuzzer and kept; this script leaves it alone.
"""

import hashlib
import json
import pathlib
import struct
import zipfile

from fixtures_common import CORE, MODELS, TRAIN

HERE = pathlib.Path(__file__).parent
MARK = b"\n%%\n"
# Longer seeds slow the fuzzer down and hold nothing more.
LONGEST = 16 << 10


def seed(target, name, *parts):
    content = MARK.join(parts)
    assert len(content) <= LONGEST, (target, name, len(content))
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def split(path):
    """Header and values of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + length].rstrip(), content[8 + length :]


def header(**tensors):
    """A header of tensors given as (dtype, shape, start, end)."""
    infos = {name: {"dtype": d, "shape": s, "data_offsets": [a, b]} for name, (d, s, a, b) in tensors.items()}
    return json.dumps(infos).encode()


def safetensors():
    for name in ("peft_linear/adapter_model", "combine/first/adapter_model"):
        seed("safetensors", f"honest-{name.split('/')[0]}", (CORE / f"{name}.safetensors").read_bytes())

    def hostile(name, head, values=b""):
        length = struct.pack("<Q", len(head))
        seed("safetensors", f"hostile-{name}", length + head + values)

    hostile("overlap", header(a=("F32", [2], 0, 8), b=("F32", [2], 4, 12)), bytes(12))
    hostile("gap", header(a=("F32", [2], 0, 8), b=("F32", [2], 12, 20)), bytes(20))
    hostile("huge_shape", header(a=("F32", [1 << 40, 1 << 40], 0, 8)), bytes(8))
    hostile("huge_offset", header(a=("U8", [2**63], 0, 2**63)), bytes(8))
    hostile("no_elements", header(a=("F32", [0, 2**62], 0, 0)))
    hostile("deep", b'{"a":' + b"[" * 3000)
    hostile("deep_metadata", b'{"__metadata__":' + b'{"a":' * 3000)
    hostile("bad_metadata", b'{"__metadata__":{"lora_core.slices":"{","lora_core.init":"pissa"}}')
    each = (1 << 61) - 8
    past = {f"t{i}": ("U8", [each], i * each, (i + 1) * each) for i in range(8)}
    hostile("past_the_word", header(**past, t8=("U8", [2**64 - 1 - 8 * each], 8 * each, 2**64 - 1)))
    seed("safetensors", "hostile-length", b"\xff" * 7 + b"\x7f{}")
    seed("safetensors", "hostile-hundred_megabytes", struct.pack("<Q", 100_000_000) + b"{}")


def peft():
    adapters = [
        (CORE / "combine/first", "combine"),
        (CORE / "peft_linear", "linear"),
        (MODELS / "encoders/adapters/bert_ranks", "ranks"),
        (MODELS / "encoders/adapters/xl_words", "words"),
    ]
    for folder, name in adapters:
        config = (folder / "adapter_config.json").read_bytes()
        head, values = split(folder / "adapter_model.safetensors")
        seed("peft", f"honest-{name}", config, head, values)
    config, head = (CORE / "combine/first/adapter_config.json").read_bytes(), b"{}"
    base = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q"]}

    def hostile(name, tensors, values, **fields):
        seed("peft", f"hostile-{name}", json.dumps(base | fields).encode(), tensors, values)

    names = [f"base_model.model.q.lora_{x}.weight" for x in "AB"]
    pair = {names[0]: ("F32", [2, 2], 0, 16), names[1]: ("F32", [2, 2], 16, 32)}
    hostile("huge_rank", header(**pair), bytes(32), r=2**63)
    hostile("rank_0", header(**{names[0]: ("F32", [0, 2], 0, 0), names[1]: ("F32", [2, 0], 0, 0)}), b"", r=0)
    hostile("no_width", header(**{names[0]: ("F32", [2, 0], 0, 0), names[1]: ("F32", [0, 2], 0, 0)}), b"")
    hostile("vector", header(**{names[0]: ("F32", [2], 0, 8), names[1]: ("F32", [2], 8, 16)}), bytes(16))
    hostile("scalar", header(**{names[0]: ("F32", [], 0, 4), names[1]: ("F32", [], 4, 8)}), bytes(8))
    hostile("three_axes", header(**{names[0]: ("F32", [2, 2, 1], 0, 16), names[1]: ("F32", [2, 2], 16, 32)}), bytes(32))
    hostile("pattern", header(**pair), bytes(32), rank_pattern={"(a{1000}){1000}": 2})
    hostile("patterns", header(**pair), bytes(32), rank_pattern={f"\\w{{200}}{i}": 2 for i in range(40)})
    hostile("alpha", header(**pair), bytes(32), lora_alpha=1e308, use_rslora=True)
    for name, slices in [
        ("slices_0", {"parts": 0, "adapted": [0]}),
        ("slices_huge", {"parts": 2**63, "adapted": [0], "heads": 2**63}),
        ("slices_none", {"parts": 2, "adapted": []}),
        ("slices_many", {"parts": 2, "adapted": [0, 1], "heads": 1}),
    ]:
        infos = json.loads(header(**pair))
        infos["__metadata__"] = {"lora_core.slices": json.dumps({"q": slices})}
        hostile(name, json.dumps(infos).encode(), bytes(32))
    seed("peft", "hostile-deep", b'{"peft_type":' + b"[" * 3000, head)
    seed("peft", "hostile-companion", config, head, b"", b'{"id2label": {"0": "a", "4294967296": "b"}}')


def torch_files():
    for folder, name in [("formats", "linear"), ("formats", "merged"), ("torch_layouts", "legacy"), ("torch_layouts", "zip")]:
        seed("torch_file", f"honest-{name}", (MODELS / folder / f"{name}.bin").read_bytes())
    for path in sorted((MODELS / "hostile").glob("*.bin")):
        # The one that is a bomb of 100 kB stays with the tests of the reader.
        if path.stat().st_size <= LONGEST:
            seed("torch_file", f"hostile-{path.stem}", path.read_bytes())
    with zipfile.ZipFile(MODELS / "formats/linear.bin") as archive:
        inside = {info.filename.split("/", 1)[1]: archive.read(info) for info in archive.infolist()}
    seed("pickle", "honest-linear", inside["data.pkl"], inside["data/0"])
    text = lambda value: b"X" + struct.pack("<I", len(value)) + value
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + b"K\x04tQ"
        + b"%s(%st(%st\x89ccollections\nOrderedDict\n)RtR"
    )
    number = lambda value: b"\x8a\x09" + struct.pack("<q", value) + b"\x00"
    shapes = [
        ("tensor", b"K\x00", b"K\x02K\x02", b"K\x02K\x01"),
        ("huge_shape", b"K\x00", number(2**40) + number(2**40), b"K\x01K\x01"),
        ("stride_0", b"K\x00", number(2**20) + number(2**20), b"K\x00K\x00"),
        ("huge_stride", b"K\x00", b"K\x02K\x02", number(2**62) + number(2**62)),
        ("negative", b"J\xff\xff\xff\xff", b"K\x02K\x02", b"J\xff\xff\xff\xffK\x01"),
        ("huge_offset", number(2**62), b"K\x02K\x02", b"K\x02K\x01"),
        ("no_stride", b"K\x00", b"K\x02K\x02", b"K\x02"),
        ("no_elements", b"K\x00", b"K\x00" + number(2**62), b"K\x01K\x01"),
    ]
    for name, offset, shape, stride in shapes:
        kind = "honest" if name == "tensor" else "hostile"
        for factor in [b"q.lora_A"]:
            program = b"\x80\x02}(" + text(factor) + tensor % (offset, shape, stride) + b"u."
            seed("pickle", f"{kind}-{name}", program, struct.pack("<4f", 1, 2, 3, 4))
    # Each list holds the one before twice: a reader that copies what it is given again doubles it each time.
    doubling = b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))
    seed("pickle", "hostile-doubling", b"\x80\x02]q\x00" + doubling + b".")
    tuples = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    seed("pickle", "hostile-doubling_tuples", b"\x80\x02]q\x00" + tuples + b".")
    seed("pickle", "hostile-nested", b"\x80\x02" + b"](" * 2000 + b"e" * 2000 + b".")
    seed("pickle", "hostile-nested_tuples", b"\x80\x02N" + b"\x85" * 5000 + b".")
    seed("pickle", "hostile-call", b"\x80\x02cposix\nsystem\n" + text(b"true") + b"\x85R.")
    seed("pickle", "hostile-long", b"\x80\x02X\xff\xff\xff\xff")
    seed("pickle", "hostile-marks", b"\x80\x02" + b"(" * 5000 + b".")


def shards():
    head = header(a=("F32", [2], 0, 8))
    index = lambda **places: json.dumps({"weight_map": places}).encode()
    seed("shards", "honest-one", index(a="a.safetensors"), head, bytes(8))
    seed("shards", "hostile-outside", index(a="../a.safetensors"), head, bytes(8))
    seed("shards", "hostile-itself", index(a="model.safetensors.index.json"), head, bytes(8))
    seed("shards", "hostile-lie", index(a="a.safetensors", b="a.safetensors"), head, bytes(8))
    seed("shards", "hostile-deep", b'{"weight_map":' + b"{" * 3000, head, bytes(8))
    seed("shards", "hostile-twice", b'{"weight_map":{"a":"a.safetensors","a":"b.safetensors"}}', head, bytes(8))


def formats():
    def loralib(name, tensors, size):
        seed("loralib", name, header(**tensors), struct.pack(f"<{size // 4}f", *range(size // 4)))

    loralib("honest-linear", {"q.lora_A": ("F32", [2, 3], 0, 24), "q.lora_B": ("F32", [2, 2], 24, 40)}, 40)
    loralib("honest-merged", {"q.lora_A": ("F32", [4, 3], 0, 48), "q.lora_B": ("F32", [4, 2], 48, 80)}, 80)
    loralib("hostile-no_rank", {"q.lora_A": ("F32", [0, 3], 0, 0), "q.lora_B": ("F32", [2, 0], 0, 0)}, 0)
    loralib("hostile-no_width", {"q.lora_A": ("F32", [2, 0], 0, 0), "q.lora_B": ("F32", [0, 2], 0, 0)}, 0)
    loralib("hostile-vector", {"q.lora_A": ("F32", [2], 0, 8), "q.lora_B": ("F32", [2], 8, 16)}, 16)
    wide = {"q.lora_A": ("F32", [4, 0], 0, 0), "q.lora_B": ("F32", [1 << 40, 0], 0, 0)}
    loralib("hostile-empty_and_wide", wide, 0)
    # One column each: the dense form of a fused projection has parts² times as many values as the file.
    fused = {"q.lora_A": ("F32", [2, 0], 0, 0), "q.lora_B": ("F32", [2000, 1], 0, 8000)}
    loralib("hostile-fused", fused, 8000)

    def mlx(name, tensors, size, **parameters):
        config = {"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 20.0} | parameters}
        seed("mlx", name, json.dumps(config).encode(), header(**tensors), bytes(size))

    pair = {"q.lora_a": ("F32", [3, 2], 0, 24), "q.lora_b": ("F32", [2, 2], 24, 40)}
    mlx("honest-pair", pair, 40)
    mlx("hostile-rank_0", {"q.lora_a": ("F32", [3, 0], 0, 0), "q.lora_b": ("F32", [0, 2], 0, 0)}, 0, rank=0)
    mlx("hostile-huge_rank", pair, 40, rank=2**63)
    mlx("hostile-scale", pair, 40, scale=1e308)
    mlx("hostile-wide", {"q.lora_a": ("F32", [1 << 60, 0], 0, 0), "q.lora_b": ("F32", [0, 1 << 60], 0, 0)}, 0, rank=0)


def model_configs():
    for name in ("gpt2_tied", "encoders/bert_seq", "encoders/roberta_tok", "encoders/deberta_seq", "encoders/xl_seq"):
        seed("model_config", f"honest-{name.split('/')[-1]}", (MODELS / name / "config.json").read_bytes())
    gpt2 = json.loads((MODELS / "gpt2_tied/config.json").read_bytes())
    huge = gpt2 | {key: 2**63 for key in ("n_embd", "n_layer", "n_head", "n_positions", "vocab_size", "n_inner")}
    seed("model_config", "hostile-huge_gpt2", json.dumps(huge).encode())
    bert = json.loads((MODELS / "encoders/bert_seq/config.json").read_bytes())
    huge = bert | {key: 2**63 for key, value in bert.items() if isinstance(value, int) and not isinstance(value, bool)}
    seed("model_config", "hostile-huge_bert", json.dumps(huge).encode())
    labels = bert | {"id2label": {"18446744073709551615": "a", "0": "b"}, "num_labels": 2**62}
    seed("model_config", "hostile-labels", json.dumps(labels).encode())
    seed("model_config", "hostile-many_labels", json.dumps(bert | {"id2label": None, "num_labels": 2**40}).encode())
    zero = gpt2 | {"n_head": 0}
    seed("model_config", "hostile-no_heads", json.dumps(zero).encode())
    seed("model_config", "hostile-deep", b'{"model_type":' + b"[" * 3000)
    for name in ("llama3_old", "phi3", "gemma3_text", "olmo3"):
        seed("model_config", f"honest-{name}", (MODELS / "decoders" / name / "config.json").read_bytes())
    llama = json.loads((MODELS / "decoders/llama3_old/config.json").read_bytes())
    huge = llama | {key: 2**63 for key, value in llama.items() if isinstance(value, int) and not isinstance(value, bool)}
    seed("model_config", "hostile-huge_llama", json.dumps(huge).encode())
    phi3 = json.loads((MODELS / "decoders/phi3/config.json").read_bytes())
    seed("model_config", "hostile-original", json.dumps(phi3 | {"original_max_position_embeddings": -1}).encode())


def chat_templates():
    turns = [("system", "Be brief."), ("user", "Hi, who?"), ("assistant", "I."), ("user", "and\n"), ("assistant", "you")]
    messages = [{"role": role, "content": content} for role, content in turns]
    for path in sorted((MODELS / "chat/templates").rglob("*.jinja")):
        # Some want no system.
        chosen = messages if b"System role not supported" not in path.read_bytes() else messages[1:]
        if path.stat().st_size < LONGEST - 1000:
            name = "-".join(path.relative_to(MODELS / "chat/templates").with_suffix("").parts)
            seed("chat_template", f"honest-{name}", path.read_bytes(), json.dumps(chosen).encode())
    loop = "{% set ns = namespace(s=messages[0].content, x=[1]) %}{% for i in range(99999) %}{% set ns.WHAT %}{% endfor %}{{ ns.s }}"
    for name, what in {
        "double": "s = ns.s ~ ns.s",
        "slice": "s = ns.s[0:]",
        "nest": "x = [ns.x]",
        "pad": "s = ns.s.center(9999, ns.s)",
        "indent": "s = ns.s | indent(width=99999999999)",
        "negative": "s = ns.s.rjust(-1)",
    }.items():
        seed("chat_template", f"hostile-{name}", loop.replace("WHAT", what).encode(), json.dumps(messages).encode())
    seed("chat_template", "hostile-minus", b"{{ " + b"-" * 9000 + b"1 }}", b"[]")
    seed("chat_template", "hostile-deep", b"{{ " + b"[" * 4000, b"[]")


def tokenizers():
    files = MODELS / "tokenizer_families/files"

    def seed_of(kind, name, *parts):
        seed("tokenizer", name, kind + parts[0], *parts[1:])

    config = b'{"tokenizer_class": "%s", "do_lower_case": true}'
    seed_of(b"b", "honest-bert", (files / "bert.txt").read_bytes(), config % b"BertTokenizer")
    seed_of(b"d", "honest-deberta_v2", (files / "deberta_v2.model").read_bytes(), config % b"DebertaV2Tokenizer")
    seed_of(b"x", "honest-xlmr", (files / "xlmr_small.model").read_bytes(), config % b"XLMRobertaTokenizer")
    merges = (files / "merges.txt").read_bytes()
    seed_of(b"r", "honest-roberta", (files / "roberta_vocab.json").read_bytes(), config % b"RobertaTokenizer", merges)
    seed_of(b"g", "honest-gpt2", (MODELS / "gpt2_tied/vocab.json").read_bytes(), b"{}", (MODELS / "gpt2_tied/merges.txt").read_bytes())
    seed_of(b"w", "honest-whole", (files / "bert.json").read_bytes(), b"{}")
    seed_of(b"w", "honest-whole_unigram", (files / "deberta_v2.json").read_bytes(), b"{}")
    whole = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}}

    def hostile(name, **fields):
        seed_of(b"w", f"hostile-{name}", json.dumps(whole | fields).encode())

    hostile("padding", padding={"strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"})
    hostile("truncation", truncation={"max_length": 0, "strategy": "LongestFirst", "stride": 9, "direction": "Right"})
    hostile("regex", pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False})
    hostile("big_regex", pre_tokenizer={"type": "Split", "pattern": {"Regex": "(\\w{900}){900}"}, "behavior": "Isolated", "invert": False})
    hostile("replace", normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "aaaaaaaa"})
    replaced = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 200}
    hostile("growing", normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a"}] + [replaced] * 6})
    hostile("prepend", normalizer={"type": "Prepend", "prepend": ""})
    hostile("ids", model={"type": "WordLevel", "vocab": {"a": 0, "b": 2**32 - 1}, "unk_token": "a"})
    hostile("unigram", model={"type": "Unigram", "unk_id": 5, "vocab": [["a", 0.0]]})
    hostile("no_unigram", model={"type": "Unigram", "unk_id": None, "vocab": []})
    hostile("charsmap", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAAgA=="})
    hostile("wordpiece", model={"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "none", "continuing_subword_prefix": "", "max_input_chars_per_word": 2**63})
    hostile("added", added_tokens=[{"id": 2**32 - 1, "content": "", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}])
    hostile("template", post_processor={"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}], "pair": [], "special_tokens": {}})
    seed_of(b"w", "hostile-deep", b'{"normalizer":' + b'{"type":"Sequence","normalizers":[' * 400)
    # A field of a protobuf that claims to be longer than the file, and groups in each other.
    seed_of(b"d", "hostile-length", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
    seed_of(b"d", "hostile-groups", b"\x0b" * 3000)
    seed_of(b"d", "hostile-pieces", b"\x0a\x00" * 2000)
    seed_of(b"r", "hostile-merges", b'{"a": 0, "b": 1}', b"{}", b"a b\n" * 1000)
    seed_of(b"b", "hostile-empty_lines", b"\n" * 2000)


def data():
    for kind, path in [
        (b"j", TRAIN / "train20/train.jsonl"),
        (b"j", TRAIN / "classify/data/pairs.jsonl"),
        (b"j", TRAIN / "classify/data/feelings.jsonl"),
        (b"j", TRAIN / "classify/data/moved.jsonl"),
        (b"a", TRAIN / "classify/data/tags.conll"),
        (b"t", TRAIN / "glue/glue/mrpc/dev.tsv"),
    ]:
        lines = path.read_bytes().split(b"\n")[:6]
        seed("data", f"honest-{path.parent.name}_{path.stem}", kind + b"\n".join(lines) + b"\n")
    seed("data", "honest-csv", b'ctext,label\n"a ""b"", c",x\nd,y\n')
    seed("data", "honest-columns", b"ctext,a,b\nx,0,1\ny,1,1.0\n")
    seed("data", "honest-e2e", b"ename[A], food[B]||A serves B.\n")
    sets = TRAIN / "texts/data"
    for kind, name in [(b"d", "dart.json"), (b"w", "webnlg.json"), (b"s", "samsum.json"), (b"s", "samsum.jsonl"), (b"m", "mnli.tsv")]:
        seed("data", "honest-" + name.replace(".", "_"), kind + (sets / name).read_bytes())
    both = [(sets / name).read_bytes().splitlines()[0] for name in ["wikisql.tables.jsonl", "wikisql.jsonl"]]
    tables, question = map(json.loads, both)
    seed("data", "honest-wikisql", b"q" + json.dumps(tables | question).encode() + b"\n")
    seed("data", "hostile-array", b"d[" + b"{}," * 3000)
    seed("data", "hostile-nested", b"w{\"entries\":" + b"[" * 3000)
    seed("data", "hostile-sql", b'q{"id":"a","header":["a","a"],"types":["real","text"],"rows":[[1e308,null]],"question":"x","table_id":"a","sql":{"sel":0,"agg":5,"conds":[[1,2,"\'"]]}}\n')
    seed("data", "honest-recipe", b'amodel = "m"\ndata = "d"\noutput = "o"\nrank = 4\ntargets = ["q"]\n')
    seed("data", "hostile-quote", b'c"' + b"a,\n" * 1000)
    seed("data", "hostile-columns", b"c" + b"," * 3000 + b"\n" + b"," * 3000)
    seed("data", "hostile-deep", b'j{"text":' + b"[" * 3000)
    seed("data", "hostile-toml", b"aa" + b".a" * 3000 + b" = 1\n")
    seed("data", "hostile-toml_arrays", b"aa = " + b"[" * 3000)
    seed("data", "hostile-labels", b'j{"text":"a","label":18446744073709551615}\n{"text":"b","label":0}\n')
    seed("data", "hostile-score", b'j{"text":"a","label":1e400}\n')
    seed("data", "hostile-list", b'ctext,label\na,"' + b"[" * 3000 + b'"\nb,"[0 1 2]"\nc,"[\'x\', 1e999]"\n')
    seed("data", "hostile-bom", b"c\xef\xbb\xbftext,label\n\xff,\xfe\n")


def patched(content, *changes):
    """The content with the first place of each text replaced by another one of the same length."""
    for old, new in changes:
        assert content.count(old) > 0 and len(old) == len(new), (old, new)
        content = content.replace(old, new, 1)
    return content


def checkpoints():
    folder = TRAIN / "commit_2140182/checkpoints/step-00000021"
    state = json.loads((folder / "state.json").read_bytes())
    optimizer = (folder / "optimizer.bpk").read_bytes()
    config = (folder / "adapter/adapter_config.json").read_bytes()
    weights = split(folder / "adapter/adapter_model.safetensors")

    def of(name, optimizer=optimizer, position=None, **fields):
        changed = state | fields | ({"position": position} if position else {})
        seed("checkpoint_dir", name, json.dumps(changed).encode(), optimizer, config, *weights)

    of("honest-step")
    of("honest-without_best", best=None, skipped_in_a_row=1)
    of("hostile-step", step=2**64 - 1)
    of("hostile-batch", position={"epoch": 4, "batch": 1000})
    of("hostile-epoch", position={"epoch": 2**64 - 1, "batch": 0})
    of("hostile-evaluations", evaluations_since_best=2**64 - 1)
    of("hostile-seconds", seconds=-1e308)
    of("hostile-files", files={"optimizer.bpk": "0" * 64, "../../state.json": "0" * 64})
    of("hostile-no_parameter", patched(optimizer, (b"hparam_id", b"hparam_ix")))
    of("hostile-other_parameter", patched(optimizer, (b".momentum.moment_2", b".momentum.moment_3")))
    of("hostile-half", patched(optimizer, (b"cF32", b"cF16")))
    of("hostile-rank", patched(optimizer, (b".__rank", b".__rang")))
    of("hostile-no_optimizer", b"BURN")
    of("hostile-cut_optimizer", optimizer[:600])
    seed("checkpoint_dir", "hostile-deep", b'{"best":' + b"[" * 3000, optimizer[:600])


def hubs():
    commit = "0123456789abcdef0123456789abcdef01234567"
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    listing = lambda sha=commit, names=names: json.dumps({"sha": sha, "siblings": [{"rfilename": n} for n in names]}).encode()
    config = b'{"model_type": "gpt2"}'
    other = struct.pack("<Q", 2) + b"{}"

    def described(content, etag="abc", status="200 OK", **headers):
        lines = [status, f"etag: \"{etag}\"", f"content-length: {len(content)}"]
        return "\n".join(lines + [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]).encode()

    def model(name, listing=listing(), config_head=described(config), other_head=described(other, "abd"), head=b""):
        seed("hub", name, listing, config_head, config, other_head, other, head)

    git = "".join(f"{byte:02x}" for byte in hashlib.sha1(f"blob {len(config)}\0".encode() + config).digest())
    sha = hashlib.sha256(other).hexdigest()
    linked = {"x_linked_etag": f'"{sha}"', "x_linked_size": len(other), "x_repo_commit": commit}
    model("honest-model", config_head=described(config, git))
    model("honest-linked", other_head=described(other, "abd", "302 Found", location="http://storage/x", **linked))
    model("hostile-range", head=b"206 Partial Content\ncontent-range: bytes 0-9/10")
    model("hostile-other_commit", config_head=described(config, x_repo_commit="f" * 40))
    model("hostile-commit", listing("../../../../etc"))
    model("hostile-etag", config_head=described(config, "../../x"))
    model("hostile-part", config_head=described(config, "abc.part"))
    model("hostile-hash", config_head=described(config, "0" * 40))
    model("hostile-length", config_head=described(config) + b"0000000000")
    model("hostile-longer", config_head=b"200 OK\netag: abc\ncontent-length: 4000")
    model("hostile-status", other_head=b"401 Unauthorized\nx-error-code: GatedRepo")
    model("hostile-circle", other_head=b"307 x\nlocation: /a")
    model("hostile-elsewhere", other_head=b"307 x\nlocation: http://a@b/c")
    model("hostile-names", listing(names=[*names, "../x", "a/" * 500, "model.safetensors.index.json"]))
    model("hostile-deep", b'{"sha":' + b"[" * 3000)
    model("hostile-head", head=b"200 OK\ncontent-length: 99999999999999999999")
    model("hostile-header", config_head=b"200 OK\n" + b"a: b\n" * 500)


def pushes():
    # The adapter of `fuzz/src/hub_push.rs`.
    source = (HERE / "src/hub_push.rs").read_bytes()
    text = lambda name: source.split(b"const %s: &[u8] = br#\"" % name)[1].split(b'"#;')[0]
    config, head = text(b"CONFIG"), text(b"HEADER")
    weights = struct.pack("<Q", len(head)) + head + bytes(32)
    git = lambda content: hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    oid = hashlib.sha256(weights).hexdigest()
    names = {"README.md": git(b"# Card\n"), "adapter_config.json": git(config), "adapter_model.safetensors": oid}
    created = {"url": "https://huggingface.co/me/adapter"}
    committed = {"commitUrl": "https://huggingface.co/me/adapter/commit/0123", "commitOid": "0123"}
    done = "https://huggingface.co/api/done"

    def modes(large=("adapter_model.safetensors",), there=(), **changes):
        mode = lambda name: "lfs" if name in large else "regular"
        files = [{"path": n, "uploadMode": mode(n), "shouldIgnore": False, "oid": o if n in there else None} for n, o in names.items()]
        return {"files": [dict(file, **changes) for file in files]}

    def batch(upload={"href": "http://storage/x?signed"}, oid=oid, **more):
        return {"objects": [{"oid": oid, "size": len(weights), "actions": {"upload": upload, "verify": {"href": done}}, **more}]}

    def parts(size, count=None):
        count = -(-len(weights) // size) if count is None else count
        return {"href": done, "header": {"chunk_size": str(size), **{f"{i:05}": f"http://storage/{i}" for i in range(1, count + 1)}}}

    def push(name, kind=b"m", created=created, described={"private": True}, branch={}, modes=modes(), batch=batch(), stored=b"",
             verified={}, committed=committed):
        answers = [created, described, branch, modes, batch, stored, verified, committed]
        first, *rest = (a if isinstance(a, bytes) else json.dumps(a).encode() for a in answers)
        seed("hub_push", name, kind + first, *rest)

    tagged = b"200 OK\netag: \"tag\"\ncontent-length: 0\n\n"
    push("honest-commit")
    push("honest-short_name", b"n")
    push("honest-branch", b"b", branch=b"409 Conflict\ncontent-length: 2\n\n{}")
    push("honest-private", b"p", created=b"409 Conflict\ncontent-length: 2\n\n{}")
    push("honest-parts", batch=batch(parts(64)), stored=tagged)
    push("honest-stored", batch={"objects": [{"oid": oid, "size": len(weights)}]})
    push("honest-unchanged", modes=modes(there=names))
    push("honest-small", modes=modes(large=()))
    push("honest-redirected", created=b"307 x\nlocation: /api/repos/create2\ncontent-length: 0\n\n", verified=created)
    push("hostile-other_server", created=b"307 x\nlocation: http://a/b\ncontent-length: 0\n\n")
    push("hostile-circle", created=b"307 x\nlocation: /api/repos/create\ncontent-length: 0\n\n")
    push("hostile-account", b"n", created={"url": "https://huggingface.co/../adapter"})
    push("hostile-public", b"p", created=b"409 Conflict\ncontent-length: 2\n\n{}", described={"private": False})
    push("hostile-mode", modes=modes(uploadMode="x" * 5000))
    push("hostile-ignored", modes=modes(shouldIgnore=True))
    push("hostile-twice", modes={"files": modes()["files"] * 2})
    push("hostile-names", modes={"files": [{"path": "../x", "uploadMode": "lfs"}] * 100})
    push("hostile-deep", modes=b'{"files":' + b"[" * 3000)
    push("hostile-parts_of_nothing", batch=batch({"href": done, "header": {"chunk_size": "0", "1": "http://a/1"}}))
    push("hostile-parts_of_text", batch=batch({"href": done, "header": {"chunk_size": ["x" * 9000], "1": "http://a/1"}}))
    push("hostile-many_parts", batch=batch(parts(4)), stored=tagged)
    push("hostile-parts_too_many", batch=batch(parts(64, 300)), stored=tagged)
    push("hostile-part_number", batch=batch({"href": done, "header": {"chunk_size": 1 << 63, "4294967296": "http://a/1", "-1": "x"}}))
    push("hostile-address", batch=batch({"href": "x" * 9000}))
    push("hostile-address_of_a_file", batch=batch({"href": "file:///etc/passwd"}))
    push("hostile-error", batch=batch(error={"code": 422, "message": "\x1b]52;c;x\x07" * 300}))
    push("hostile-status", stored=b"503 Busy\ncontent-length: 0\n\n")
    push("hostile-expired", stored=b"403 x\ncontent-length: 60\n\n<Error><Message>Request has expired</Message></Error>       ")
    push("hostile-length", committed=b"200 OK\ncontent-length: 99999999999999999999\n\n{}")
    push("hostile-lost", committed=b"200 OK\ncontent-length: 4000\n\n{}")
    push("hostile-header", created=b"400 x\nx-error-message: " + b"a" * 9000 + b"\ncontent-length: 0\n\n")
    push("hostile-no_commit", committed={"commitOid": None})
    push("hostile-no_head", committed=b"\n\n")


def attachments():
    for kind, folder in [
        (b"g", "adapters/c_attn"),
        (b"g", "adapters/all_linear_keyword"),
        (b"g", "adapters/rslora"),
        (b"g", "adapters/qv_slices"),
        (b"v", "vocabulary/both"),
        (b"v", "vocabulary/new_rows"),
        (b"v", "vocabulary/new_head"),
        (b"v", "vocabulary/rows_of_each"),
        (b"c", "encoders/adapters/bert_default"),
        (b"c", "encoders/adapters/bert_pooler"),
        (b"c", "encoders/adapters/bert_tags"),
        (b"c", "encoders/adapters/bert_ranks"),
    ]:
        config = (MODELS / folder / "adapter_config.json").read_bytes()
        if folder.endswith("bert_tags"):  # Its model has one layer, the one here two.
            config = config.replace(b'"layers_to_transform": null', b'"layers_to_transform": [0]')
        seed("attached", f"honest-{folder.split('/')[-1]}", kind + config, *split(MODELS / folder / "adapter_model.safetensors"))
    base = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM"}
    module = "base_model.model.transformer.h.%d.attn.c_attn.lora_%s.weight"

    def pair(rank, width=24, outputs=72):
        tensors, at = {}, 0
        for layer in (0, 1):
            for name, shape in [("A", [rank, width]), ("B", [outputs, rank])]:
                size = 4 * shape[0] * shape[1]
                tensors[module % (layer, name)] = ("F32", shape, at, at + size)
                at += size
        return header(**tensors), bytes(at)

    def hostile(name, tensors=pair(2), **fields):
        seed("attached", f"hostile-{name}", b"g" + json.dumps(base | fields).encode(), *tensors)

    hostile("width", pair(2, width=23))
    hostile("outputs", pair(2, outputs=24))
    hostile("rank", pair(4), r=2**31)
    hostile("rank_0", pair(0), r=0)
    hostile("layers", layers_to_transform=[0, 2**40])
    hostile("tokens", trainable_token_indices={"wte": [2**31, -1]})
    hostile("token_twice", trainable_token_indices=[5, 5])
    hostile("saved", modules_to_save=["lm_head", "wte", "wpe", "h.0", ""])
    hostile("bias", bias="all", lora_bias=True)
    hostile("dora", use_dora=True)
    hostile("alpha", lora_alpha=1e300, use_rslora=True)
    hostile("targets", target_modules="(.*)*", exclude_modules="((a*)*)*b")
    # No values, and a name for each of the outputs.
    wide = header(**{"base_model.model.classifier.weight": ("F32", [2**40, 0], 0, 0)})
    seed("attached", "hostile-outputs_without_values", b"c" + json.dumps(base | {"task_type": "SEQ_CLS"}).encode(), wide)


def prefixes():
    for name in ("tied", "projected"):
        config = (MODELS / "prefix" / name / "adapter_config.json").read_bytes()
        seed("prefix", f"honest-{name}", config, *split(MODELS / "prefix" / name / "adapter_model.safetensors"))
    base = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 2, "num_layers": 2, "token_dim": 24, "num_attention_heads": 3, "task_type": "CAUSAL_LM"}

    def hostile(name, shape=(2, 96), **fields):
        size = 4 * shape[0] * shape[1]
        tensor = header(prompt_embeddings=("F32", list(shape), 0, size))
        seed("prefix", f"hostile-{name}", json.dumps(base | fields).encode(), tensor, bytes(size) if size < LONGEST else b"")

    hostile("tokens", num_virtual_tokens=2**63)
    hostile("no_tokens", (0, 96), num_virtual_tokens=0)
    hostile("no_room", (64, 96), num_virtual_tokens=64)
    hostile("turned", (96, 2))
    hostile("projection", prefix_projection=True, encoder_hidden_size=2**63)
    hostile("layers", num_layers=0, token_dim=0)
    hostile("lora", peft_type="LORA")


def glue():
    # The first byte modulo ten is the task.
    tasks = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnli", "qnli", "rte", "wnli"]
    for index, task in enumerate(tasks):
        names = ["train", "test_matched" if task == "mnli" else "test"]
        for name in names if index != 6 else ["dev_mismatched"]:
            lines = (TRAIN / f"glue/glue/{task}/{name}.tsv").read_bytes().split(b"\n")[:4]
            seed("glue", f"honest-{task}_{name}", bytes([80 + index]) + b"\n".join(lines) + b"\n")
    seed("glue", "honest-json_lines", b'Q{"sentence": "a", "label": 1}\n{"sentence": "b", "label": "negative"}\n')
    seed("glue", "hostile-label", b"Qsentence\tlabel\na\t2\nb\t-1\n")
    seed("glue", "hostile-score", b"Sindex\tsentence1\tsentence2\tscore\n0\ta\tb\t1e999\n1\ta\tb\tNaN\n")
    seed("glue", "hostile-columns", b"P" + b"\t" * 3000 + b"\n" + b"\t" * 3000)
    seed("glue", "hostile-index", b"Wquestion\tsentence\tindex\tlabel\na\tb\t99999999999999999999\tentailment\n")
    seed("glue", "hostile-quote", b'Rsentence1\tsentence2\tlabel\n"a\tb\t1\n')


def tokenizer_texts():
    files = MODELS / "tokenizer_families/files"
    text = "Hello wörld, it's 42\u3000日本 </s> [MASK]  x\n".encode()

    def of(kind, name, text, *parts):
        seed("tokenizer_text", name, kind + text, *parts)

    of(b"b", "honest-bert", text, (files / "bert.txt").read_bytes(), b'{"do_lower_case": true}')
    of(b"d", "honest-deberta_v2", text, (files / "deberta_v2.model").read_bytes())
    tied = MODELS / "gpt2_tied"
    of(b"g", "honest-gpt2", text, (tied / "vocab.json").read_bytes(), b"{}", (tied / "merges.txt").read_bytes())
    of(b"w", "honest-whole", text, (files / "bert.json").read_bytes())
    of(b"w", "honest-whole_unigram", text, (files / "deberta_v2.json").read_bytes())
    whole = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}}

    def hostile(name, text, **fields):
        of(b"w", f"hostile-{name}", text, json.dumps(whole | fields).encode())

    split_by = lambda regex: {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    replace = lambda pattern, content: {"type": "Replace", "pattern": pattern, "content": content}
    hostile("backtracking", b"a" * 2000 + b"!", pre_tokenizer=split_by("(?=(a+)+$)"))
    hostile("reference", b"ab" * 1000, pre_tokenizer=split_by("(a+b+)+\\1$"))
    hostile("growing", b"a" * 4000, normalizer=replace({"String": "a"}, "aaaaaaaa"))
    hostile("empty_regex", "日本".encode() * 500, normalizer=replace({"Regex": ""}, "é"))
    hostile("long_word", b"a" * 8000, model={"type": "WordPiece", "vocab": {"a": 0, "##a": 1}, "unk_token": "a", "continuing_subword_prefix": "##", "max_input_chars_per_word": 2**63})
    hostile("merges", b"a" * 4000, model={"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": ["a a"]})
    hostile("unigram", b"a" * 4000, model={"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["aa", -1e308], ["aaa", 1e308]]})
    hostile("not_utf8", b"\xff\xfe\x00\xed\xa0\x80" * 100, pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True})
    hostile("marks", ("a" + "\u0301" * 2000).encode(), normalizer={"type": "NFC"})


def main():
    for path in (HERE / "corpus").glob("*/ho*-*"):
        path.unlink()
    for write in (safetensors, peft, torch_files, shards, formats, model_configs, chat_templates, tokenizers, data, checkpoints, hubs, pushes, attachments, prefixes, glue, tokenizer_texts):
        write()


if __name__ == "__main__":
    main()
