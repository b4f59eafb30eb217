"""Makes the tiny base model and its data: a complete Hugging Face folder, in about two minutes of one CPU core.

    python tools/make_tiny_model.py --out .cache/tiny

A second call with the same arguments and the same code returns at once. An interrupted call leaves nothing behind that
looks finished.
"""

import argparse
import fcntl
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import tiny_data
import tiny_quality
import tiny_tokenizer
import tiny_training
import transformers

MARKER = "tiny_model.json"


class Variety(StrEnum):
    TRAINED = "trained"  # the base model of the tiny world
    RANDOM = "random"  # the same, not trained: for tests of machinery
    BYTE_LEVEL = "byte-level"  # not trained, any text in and out: for tests on real data


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides the files, beside the versions of torch and transformers."""

    variety: Variety
    seed: int
    steps: int
    digest: str  # of the tools and the world


def make_tiny_model(out: Path, *, variety: Variety = Variety.TRAINED, seed: int = 0, steps: int = 1000) -> bool:
    """Makes `out` unless it holds exactly this model already; returns whether there was anything to do.

    Raises `ValueError` if `out` exists and was not made by this function, or if `seed` or `steps` make no sense.
    """
    if steps < 1:
        raise ValueError(f"--steps {steps} must be at least 1; use --random for a model that is not trained")
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed {seed} must be in [0, 2**63)")
    recipe = Recipe(variety, seed, steps if variety is Variety.TRAINED else 0, _digest())
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(out.parent / f".{out.name}.lock"):
        if out.exists():
            found = _recipe_of(out)
            if found is None:
                raise ValueError(f"--out {out} exists and was not made by this tool; name another folder")
            if found == json.loads(json.dumps(asdict(recipe))):
                return False
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        replaced = scratch.with_name(f"{scratch.name}.replaced")
        try:
            scratch.chmod(0o755)
            _write(scratch, recipe)
            if out.exists():
                out.rename(replaced)
            scratch.rename(out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)
    return True


def _write(folder: Path, recipe: Recipe) -> None:
    transformers.utils.logging.disable_progress_bar()
    if recipe.variety is Variety.BYTE_LEVEL:
        layout, max_positions = tiny_tokenizer.BYTE_LEVEL, 32768  # room for a real prompt, one token per byte
    else:
        layout, max_positions = tiny_tokenizer.TINY, 256
        tiny_data.write_data(folder / "data")
    tiny_tokenizer.save_tokenizer(folder, layout)
    model = tiny_training.new_model(
        vocabulary=layout.vocabulary, eos=layout.eos, pad=layout.pad, max_positions=max_positions, seed=recipe.seed
    )
    model.save_pretrained(folder)
    if recipe.variety is Variety.TRAINED:
        tokenizer = tiny_tokenizer.load_tokenizer(folder)
        tiny_training.train(model, tokenizer, seed=recipe.seed, steps=recipe.steps)
        model.save_pretrained(folder)
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    (folder / MARKER).write_text(json.dumps(asdict(recipe), indent=2) + "\n")  # last: a folder with it is complete


def _recipe_of(folder: Path) -> object:
    """What the marker of a finished folder says; None if there is none."""
    marker = folder / MARKER
    return json.loads(marker.read_text()) if marker.is_file() else None


def _digest() -> str:
    """Of the sources of these tools, and of a sample of the world as the project's constraint rules shape it."""
    folder = Path(__file__).parent
    sources = sorted([*folder.glob("tiny_*.py"), folder / "make_tiny_model.py"])
    digest = hashlib.blake2b(digest_size=16)
    for content in (*(source.read_bytes() for source in sources), repr(tiny_data.sample()).encode()):
        digest.update(f"{len(content)}\n".encode() + content)
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One maker of a folder at a time; the second one waits and then finds it made."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; its data go to OUT/data")
    parser.add_argument("--seed", type=int, default=0, help="of weights and demonstrations; the data are the same")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of 32 examples")
    parser.add_argument("--check", action="store_true", help="also measure follow rate and Instructor output on dev")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--random", action="store_true", help="do not train")
    kind.add_argument("--byte-level", action="store_true", help="do not train, byte-level tokenizer, no data")
    options = parser.parse_args(arguments)
    variety = Variety.RANDOM if options.random else Variety.BYTE_LEVEL if options.byte_level else Variety.TRAINED
    try:
        made = make_tiny_model(options.out, variety=variety, seed=options.seed, steps=options.steps)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {'made' if made else 'already there'}")
    if options.check:
        print(tiny_quality.measure(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
