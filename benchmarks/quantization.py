"""What fewer bits cost and save: bytes, memory, perplexity, speed, recommendations; ours beside `bitsandbytes`.

    python benchmarks/quantization.py ladder --size laptop --data online-retail
    python benchmarks/quantization.py ladder --size full --data online-retail --model FOLDER
    python benchmarks/quantization.py baskets --data online-retail
    python benchmarks/quantization.py kernels

`ladder` writes results/quantization_<size>_<name of the data>.json; `--size laptop` takes `workshop.language_model`,
`full` what benchmarks/quantization/full_model.py left in FOLDER. Each rung of the ladder, float32 to NF4, is loaded
from its own file by a process of its own, several times in turns. Peaks of memory, one of loading and one of decoding a
text, are what they add to a Python that has decoded with a tiny model before. Loading copies the weights out of the
file, which counts as memory meanwhile. Perplexity is that of the products that decoding uses, on the first windows of
the validation text. The library's rungs multiply with the codes of ours (they are equal), its double quantization is
its own. The table that tokens are read from is ours there, since the library's is not tied to the head.

`baskets` writes results/quantization_baskets_<name of the data>.json, with the date for another cut than the usual one:
NDCG of one fitted BasketGPT in fewer and fewer bits, paired by shopper. `kernels` writes
results/quantization_kernels.json: one product with 54,304 x 512 weights by every route that was tried, and this
machine's bandwidth and peaks.

On two cores and the real log: laptop 5 minutes and 2 GB, full 12 and 3 GB, baskets 4 and 3 GB, kernels 1 and 1 GB.
`--quick`: a rehearsal of each that writes nothing.
"""

import argparse
import copy
import hashlib
import json
import logging
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from recbook.baselines import evaluation, intervals
from recbook.baselines.results import describe_data, save_results, slug
from recbook.baskets.model import BasketGPT, scores_at_cut
from recbook.baskets.network import BasketGPTConfig
from recbook.book import workshop
from recbook.cleaning import receipts
from recbook.cleaning.load import load_receipts
from recbook.generation.generate import generate
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.quantization import formats
from recbook.quantization import weights as quantized_weights
from recbook.quantization.layers import QuantizedEmbedding, quantize, quantized_schemes
from recbook.quantization.weights import Int8Weight, NF4Weight
from recbook.training import checkpoints

OURS = ("float32", "bfloat16", *formats.SCHEMES)
LIBRARY = {"bitsandbytes int8": "int8", "bitsandbytes nf4": "nf4", "bitsandbytes nf4-double": "nf4"}  # whose codes
BATCHES, PROMPT, SEED = (1, 16), 16, 0
THREADS = int(os.environ.get("OMP_NUM_THREADS", 2))
WINDOWS = 32  # of the validation text, as long as the context: what perplexity is measured on
TURNS, ROUNDS, TOKENS = 3, 3, 48  # processes a rung, texts a process after one that does not count, tokens a text
ROWS, COLUMNS = 54_304, 512  # of the product that `kernels` times: the `full` model's head


# --- The ladder: one rung, in a process of its own ---------------------------------------------------------------


class LibraryHead(nn.Module):
    """A token embedding of ours, read as it is; its logits by a layer of the library."""

    def __init__(self, table: QuantizedEmbedding, head: nn.Module):
        """The table and the layer, of the same codes."""
        super().__init__()
        self.table, self.head = table, head

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The vectors of tokens."""
        return self.table(tokens)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Inner products with all vectors."""
        return self.head(hidden)


def library_layer(layer: nn.Module, name: str) -> nn.Module:
    """A layer of bitsandbytes that multiplies with the codes of ours."""
    import bitsandbytes as bnb

    (rows, columns), weight, bias = layer.quantized_weight.shape, layer.quantized_weight, getattr(layer, "bias", None)
    with torch.device("meta"):
        if name.endswith("int8"):
            new = bnb.nn.Linear8bitLt(columns, rows, bias is not None, has_fp16_weights=False, threshold=0.0)
        else:
            new = bnb.nn.Linear4bit(columns, rows, bias is not None, quant_type="nf4", compute_dtype=torch.float32)
    if name.endswith("int8"):
        largest = weight.scales.flatten() * formats.LARGEST_CODE
        new.weight = bnb.nn.Int8Params(weight.codes, False, False, CB=weight.codes, SCB=largest)
    else:
        state = library_state(weight, double=name.endswith("double"))
        new.weight = bnb.nn.Params4bit(weight.codes[:, None], False, quant_state=state, bnb_quantized=True, module=new)
        new.quant_state = state
    new.bias = bias
    # Its own product for a CPU wants rows in multiples of 32; in training mode it makes the weights anew instead.
    return new.train(rows % 32 != 0)


def library_state(weight: NF4Weight, double: bool):
    """What bitsandbytes keeps beside the codes."""
    import bitsandbytes.functional as bf

    about = dict(shape=torch.Size(weight.shape), code=formats.NF4_LEVELS, blocksize=64, quant_type="nf4")
    about["dtype"] = torch.float32
    if not double:
        return bf.QuantState(absmax=weight.absmax, **about)
    mean = weight.absmax.mean()
    codes, second = bf.quantize_blockwise(weight.absmax - mean, blocksize=256)
    return bf.QuantState(absmax=codes, offset=mean, state2=second, **about)


def load_rung(name: str, folder: str) -> nn.Module:
    """The model of a rung, from the files that `write_rungs` made."""
    model = checkpoints.load_gpt(Path(folder) / LIBRARY.get(name, name))
    for path in quantized_schemes(model) if name in LIBRARY else ():
        layer, (parent, _, last) = model.get_submodule(path), path.rpartition(".")
        new = library_layer(layer, name)
        new = LibraryHead(layer, new) if isinstance(layer, QuantizedEmbedding) else new
        setattr(model.get_submodule(parent), last, new)
    return model


def memory(kind: str) -> float:
    """Megabytes of this process: "VmHWM", the most so far, or "VmRSS", now."""
    try:  # getrusage would count what the parent had when it started this process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """Count the most memory from here on, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("the peak of decoding includes that of loading here", file=sys.stderr)


def warm_up(name: str) -> None:
    """Have all libraries loaded and ready, by way of a tiny model."""
    if name in LIBRARY:
        quieten_library()
    tiny = GPT(GPTConfig(64, 32, 1, 1, 64), seed=SEED).eval()
    tiny = tiny.bfloat16() if name == "bfloat16" else tiny
    scheme = LIBRARY.get(name, name)
    tiny = quantize(tiny, scheme) if scheme in formats.SCHEMES else tiny
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.save_gpt(tiny, folder)
        generate(checkpoints.load_gpt(folder), [[1, 2]], 4)


@torch.inference_mode()
def perplexity(model: nn.Module, tokens: np.ndarray, windows: int) -> float:
    """exp(nats a token) on the first windows, by the products that decoding uses."""
    context, nats = model.config.context, []
    quantized_weights.FEW_ROWS = context  # the int8 kernel also for as many rows as a window has
    for window in range(windows):
        ids = torch.from_numpy(tokens[window * context : (window + 1) * context + 1].astype(np.int64))[None]
        logits = model(ids[:, :-1]).float()[0]
        nats.append(F.cross_entropy(logits, ids[0, 1:]).item())
    return math.exp(np.mean(nats))


def rung(arguments: argparse.Namespace) -> None:
    """Load, decode, judge; print what was measured as JSON."""
    warm_up(arguments.rung)
    tokens = np.load(Path(arguments.folder) / "validation.npy")
    before = memory("VmRSS")
    forget_peak()
    model = load_rung(arguments.rung, arguments.folder)
    told = {"speeds": {}, "peaks": {"loading": memory("VmHWM") - before}}
    forget_peak()
    prompts = tokens[: max(BATCHES) * PROMPT].reshape(-1, PROMPT).astype(int).tolist()
    for batch in BATCHES:
        taken = []
        for _ in range(arguments.rounds + 1):
            start = time.perf_counter()
            made = generate(model, prompts[:batch], arguments.tokens)
            taken.append(time.perf_counter() - start)
        told["speeds"][batch] = [sum(map(len, made)) / seconds for seconds in taken[1:]]
        told["peaks"].setdefault("decoding", memory("VmHWM") - before)  # after one text at a time
    if arguments.windows:
        told["perplexity"] = perplexity(model, tokens, arguments.windows)
    print(json.dumps(told))


def quieten_library() -> None:
    """Import bitsandbytes without its advice."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes  # noqa: F401


# --- The ladder: all rungs ---------------------------------------------------------------------------------------


def write_rungs(model: nn.Module, validation: np.ndarray, folder: Path) -> None:
    """A file for each of our rungs, and the text to judge by."""
    np.save(folder / "validation.npy", validation)
    for name in OURS:
        small = copy.deepcopy(model)
        small = small.bfloat16() if name == "bfloat16" else small
        small = quantize(small, name) if name in formats.SCHEMES else small
        checkpoints.save_gpt(small, folder / name)


def size_of_library(folder: Path, name: str) -> int:
    """The bytes of the library's tensors for all quantized layers, and of ours for the rest."""
    quieten_library()
    model, total = checkpoints.load_gpt(folder / LIBRARY[name]), 0
    for path in quantized_schemes(model):
        weight = model.get_submodule(path).quantized_weight
        if name.endswith("int8"):
            total += weight.codes.nbytes + weight.scales.nbytes
        else:
            state = library_state(weight, name.endswith("double")).as_dict(packed=True)
            total += weight.codes.nbytes + sum(tensor.nbytes for tensor in state.values())
    return total + sum(parameter.nbytes for parameter in model.parameters())


def climb(folder: Path, turns: int, rounds: int, tokens: int, windows: int) -> dict[str, dict]:
    """What each rung's processes tell: lists of speeds and peaks, and a perplexity."""
    told: dict[str, dict] = {}
    for turn in range(turns):
        for name in (*OURS, *LIBRARY):
            command = [sys.executable, __file__, "rung", "--rung", name, "--folder", str(folder)]
            command += ["--rounds", str(rounds), "--tokens", str(tokens), "--windows", str(0 if turn else windows)]
            environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                print(f"  {name} does not run here: {done.stderr.strip().splitlines()[-1]}")
                continue
            new = json.loads(done.stdout.splitlines()[-1])
            print(
                f"  {name}: {', '.join(f'{np.median(each):.1f}' for each in new['speeds'].values())} tokens/s",
                flush=True,
            )
            mine = told.setdefault(name, {"speeds": {}, "peaks": {}})
            for kind, peak in new["peaks"].items():
                mine["peaks"].setdefault(kind, []).append(peak)
            mine["perplexity"] = new.get("perplexity", mine.get("perplexity"))
            for batch, speeds in new["speeds"].items():
                mine["speeds"].setdefault(int(batch), []).extend(speeds)
    return told


def ladder_rows(told: dict[str, dict], folder: Path, judged: int) -> list[dict]:
    """The figures of all rungs in long form."""
    rows = []
    for name, figures in told.items():
        file = folder / LIBRARY.get(name, name) / checkpoints.MODEL
        on_disk = file.stat().st_size if name not in LIBRARY else size_of_library(folder, name)
        header = 8 + int.from_bytes(file.open("rb").read(8), "little") if name not in LIBRARY else 0
        plain = {"megabytes_on_disk": on_disk / 1e6, "megabytes_of_weights": (on_disk - header) / 1e6}
        rows += [{"method": name, "metric": metric, "value": value} for metric, value in plain.items()]
        for kind, peaks in figures["peaks"].items():
            low, value, high = np.quantile(peaks, [0, 0.5, 1])
            row = {"method": name, "metric": f"peak_megabytes_{kind}", "value": value}
            rows.append(row | {"low": low, "high": high, "n": len(peaks)})
        rows += [{"method": name, "metric": "perplexity", "value": figures["perplexity"], "n": judged}]
        for batch, speeds in figures["speeds"].items():
            low, value, high = np.quantile(speeds, [0.25, 0.5, 0.75])
            row = {"method": name, "metric": "tokens_per_second", "batch": batch, "value": value}
            rows.append(row | {"low": low, "high": high, "n": len(speeds)})
    return rows


def ladder(arguments: argparse.Namespace) -> tuple[str, list[dict], dict]:
    """All rungs of the laptop's model, or of the full one that lies in a folder."""
    os.environ["RECBOOK_SCALE"] = arguments.size
    if arguments.data != "embedded":
        os.environ["RECBOOK_DATA"] = arguments.data
    data = described(workshop.raw_receipts(), arguments.data)
    validation = workshop.token_files()[1]
    model = checkpoints.load_gpt(arguments.model) if arguments.model else workshop.language_model()[0].cpu()
    if model.config.vocabulary != len(workshop.vocabulary()):
        raise SystemExit(f"{arguments.model} was trained with another vocabulary than that of {arguments.data}")
    context = model.config.context
    windows = min(2 if arguments.quick else WINDOWS, (len(validation) - 1) // context)
    with tempfile.TemporaryDirectory() as folder:
        write_rungs(model, np.asarray(validation[: windows * context + 1 + max(BATCHES) * PROMPT]), Path(folder))
        del model
        turns, rounds, tokens = (1, 1, 8) if arguments.quick else (TURNS, ROUNDS, TOKENS)
        told = climb(Path(folder), turns, rounds, tokens, windows)
        rows = ladder_rows(told, Path(folder), windows * context)
    return f"quantization_{arguments.size}_{slug(data['name'])}", rows, data


# --- Baskets -----------------------------------------------------------------------------------------------------


def in_bits(model: BasketGPT, scheme: str) -> BasketGPT:
    """A copy of the model in a scheme; in bfloat16 its weights are rounded, its arithmetic stays in float32."""
    small = copy.deepcopy(model)
    if scheme == "bfloat16":
        for parameter in small.network.parameters():
            parameter.data = parameter.data.bfloat16().float()
    elif scheme != "float32":
        quantize(small.network, scheme)
    return small


def basket_rows(model: BasketGPT, split: evaluation.Split, k: int = 10) -> list[dict]:
    """NDCG of every rung in each part, with intervals, and what it loses against float32, paired by shopper."""
    rows, judged, metric = [], {}, f"ndcg@{k}"
    for scheme in OURS:
        small = in_bits(model, scheme)
        judged[scheme] = evaluation.evaluate(scores_at_cut(small, split), split, k)
        table = evaluation.summarise(judged[scheme].loc[:, pd.IndexSlice[:, metric]])
        rows += table.assign(method=scheme).to_dict("records")
        held = sum(each.nbytes for each in [*small.network.parameters(), *small.network.buffers()])
        held -= small.network.text.nbytes  # no weight: the descriptions
        held -= sum(each.nbytes for each in small.network.parameters()) // 2 if scheme == "bfloat16" else 0
        rows.append({"method": scheme, "metric": "megabytes_of_weights", "value": held / 1e6})
        for part in evaluation.PARTS if scheme != "float32" else ():
            a, b = (judged[each][part, metric].to_numpy() for each in (scheme, "float32"))
            change = intervals.paired(a, b)
            row = {"method": scheme, "split": part, "metric": f"{metric} against float32", "value": change.difference}
            rows.append(row | {"low": change.low, "high": change.high, "p": change.p_value, "n": change.n})
    return rows


def basket_ladder(arguments: argparse.Namespace) -> tuple[str, list[dict], dict]:
    """Fit once, then judge in fewer and fewer bits."""
    embedded = arguments.data == "embedded"
    raw = workshop.the_shop().receipts if embedded else load_receipts(arguments.data)
    data = described(raw, arguments.data)
    clean = receipts.clean(raw).receipts
    usual = evaluation.default_cut(clean)
    split = evaluation.next_basket(clean, arguments.cut or usual)
    settings = BasketGPTConfig(epochs=0.02) if arguments.quick else BasketGPTConfig()
    model = BasketGPT.fit(split.receipts, settings, progress=False)
    rows = evaluation.result_rows(pd.DataFrame(basket_rows(model, split)), split)
    dated = f"_{split.cut:%Y-%m-%d}" if split.cut != usual else ""
    return f"quantization_baskets_{slug(data['name'])}{dated}", rows, data


# --- Kernels -----------------------------------------------------------------------------------------------------


def milliseconds(run: Callable, rounds: int) -> list[float]:
    """Of each round, after two that do not count."""
    taken = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - start))
    return taken[2:]


def routes(weight: torch.Tensor, x: torch.Tensor) -> dict[str, Callable]:
    """Every way that was tried to multiply x (n, C) with a weight (R, C)."""
    int8, nf4 = Int8Weight.of(weight), NF4Weight.of(weight)
    narrow, scales, narrow_scales = weight.bfloat16(), int8.scales.flatten(), int8.scales.flatten().bfloat16()

    def int_mm():
        largest = x.abs().amax(1, keepdim=True) / formats.LARGEST_CODE
        return torch._int_mm((x / largest).round().to(torch.int8), int8.codes.T).float() * largest * scales

    made = {
        "float32": lambda: F.linear(x, weight),
        "bfloat16": lambda: F.linear(x.bfloat16(), narrow),
        "int8 codes, bfloat16 input": lambda: torch._weight_int8pack_mm(x.bfloat16(), int8.codes, narrow_scales),
        "int8 codes, float32 input": lambda: torch._weight_int8pack_mm(x, int8.codes, scales),
        "int8 codes, int8 input": int_mm,
        "int8, dequantized": lambda: int8.product(x),
        "nf4, dequantized": lambda: nf4.product(x),
    }
    return made | others(weight, x, nf4)


def others(weight: torch.Tensor, x: torch.Tensor, nf4: NF4Weight) -> dict[str, Callable]:
    """The libraries' ways, as far as they are there."""
    made = {}
    warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")  # deprecated: it says so at every call
    try:
        steps = weight.abs().amax(1) / formats.LARGEST_CODE
        packed = torch.quantize_per_channel(weight, steps, torch.zeros(len(weight), dtype=torch.long), 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(packed)
        made["torch.ops.quantized.linear_dynamic"] = lambda: torch.ops.quantized.linear_dynamic(x, packed, True)
    except (RuntimeError, AttributeError) as error:
        print(f"  no dynamic int8 product here: {error}")
    try:
        quieten_library()
        layer = library_layer(QuantizedEmbedding(nf4), "bitsandbytes nf4")
        made["bitsandbytes nf4"] = lambda: layer(x)
    except ImportError as error:
        print(f"  no bitsandbytes here: {error}")
    return made


def kernel_rows(rows: int, rounds: int, inputs: tuple[int, ...]) -> list[dict]:
    """Milliseconds of each route, the machine's bandwidth and peaks."""
    generator, made = torch.Generator().manual_seed(SEED), []
    weight = 0.02 * torch.randn(rows, COLUMNS, generator=generator)
    for count in inputs:
        x = torch.randn(count, COLUMNS, generator=generator)
        exact = F.linear(x, weight)
        for name, run in routes(weight, x).items():
            off = ((run().float() - exact).norm() / exact.norm()).item()
            low, value, high = np.quantile(milliseconds(run, rounds), [0.25, 0.5, 0.75])
            kind = "nf4" if "nf4" in name else name if name in ("float32", "bfloat16") else "int8"
            row = {"method": name, "batch": count, "low": low, "high": high, "n": rounds}
            made.append(row | {"metric": "milliseconds", "value": value})
            made.append({"method": name, "batch": count, "metric": "relative_error", "value": off})
            size = formats.weight_bytes(rows, COLUMNS, kind) / 1e6
            made.append({"method": name, "batch": count, "metric": "megabytes_read", "value": size})
    return made + machine_rows(rounds)


def machine_rows(rounds: int) -> list[dict]:
    """Gigabytes a second read from memory, and billions of operations a second of large products."""
    much, rows = torch.ones(64_000_000), []
    taken = np.median(milliseconds(much.sum, rounds))
    rows.append({"method": "machine", "metric": "gigabytes_per_second", "value": much.nbytes / taken / 1e6})
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(1536, 1536).to(dtype)
        taken = np.median(milliseconds(lambda a=a: a @ a, rounds))
        name = f"gigaflops_{str(dtype).removeprefix('torch.')}"
        rows.append({"method": "machine", "metric": name, "value": 2 * 1536**3 / taken / 1e6})
    return rows


@torch.inference_mode()
def kernels(arguments: argparse.Namespace) -> tuple[str, list[dict], dict]:
    """The product of the full model's head, on random weights: its time does not depend on what they say."""
    rows, rounds = (4096, 3) if arguments.quick else (ROWS, 40)
    inputs = (1, 16) if arguments.quick else (1, 4, 16, 32, 64, 128)
    made = kernel_rows(rows, rounds, inputs)
    settings = json.dumps([ROWS, COLUMNS, SEED])
    digest = hashlib.sha256(settings.encode()).hexdigest()
    return "quantization_kernels", made, {"name": "random weights", "sha256": digest, "rows": ROWS}


# --- All ---------------------------------------------------------------------------------------------------------


def described(raw: pd.DataFrame, data: str) -> dict:
    """What the results say of their data."""
    return describe_data(raw, "embedded shop" if data == "embedded" else data)


def command_of(arguments: argparse.Namespace, data: dict) -> str:
    """How to run this again."""
    words = ["python benchmarks/quantization.py", arguments.what]
    if arguments.what != "kernels":
        words.append(f"--data {'embedded' if arguments.data == 'embedded' else slug(data['name'])}")
    words += [f"--size {arguments.size}"] if arguments.what == "ladder" else []
    words += ["--model FOLDER"] if getattr(arguments, "model", None) else []
    words += [f"--cut {arguments.cut}"] if getattr(arguments, "cut", None) else []
    return " ".join(words)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    each = parser.add_subparsers(dest="what", required=True)
    for name in ("ladder", "baskets", "kernels"):
        one = each.add_parser(name)
        one.add_argument("--quick", action="store_true", help="a rehearsal that writes nothing")
        if name != "kernels":
            one.add_argument(
                "--data", default="embedded", help="receipts: a path, online-retail, or embedded (default)"
            )
        if name == "ladder":
            one.add_argument("--size", choices=["laptop", "full"], default="laptop")
            one.add_argument("--model", help="the folder of a model that `recbook.training.checkpoints` saved (full)")
        if name == "baskets":
            one.add_argument("--cut", help="first day that is predicted (default: 30 days before the last)")
    one = each.add_parser("rung", help="one rung of the ladder: what the ladder itself runs")
    for name, kind in {"rung": str, "folder": str, "rounds": int, "tokens": int, "windows": int}.items():
        one.add_argument(f"--{name}", type=kind, required=True)
    arguments = parser.parse_args()
    if arguments.what == "ladder" and (arguments.size == "full") != bool(arguments.model):
        parser.error("the full size needs --model: the folder that benchmarks/quantization/full_model.py left")
    return arguments


def main() -> None:
    """Measure, print and keep."""
    arguments, start = parsed(), time.perf_counter()
    torch.set_num_threads(THREADS)
    if arguments.what == "rung":
        return rung(arguments)
    name, rows, data = {"ladder": ladder, "baskets": basket_ladder, "kernels": kernels}[arguments.what](arguments)
    print(pd.DataFrame(rows).round(4).astype(object).fillna("").to_string(index=False))
    if arguments.quick:
        return
    seconds = time.perf_counter() - start
    path = save_results(name, rows, command=command_of(arguments, data), data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
