"""Recipe files: find one by path or preset name, apply overrides, check it, print it resolved."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from foretell.errors import RecipeError
from foretell.files import expand_home
from foretell.recipe import ModelConfig, Recipe
from foretell.sections import NAME

S = TypeVar("S", bound=BaseModel)
PRESETS = Path(__file__).parent
_SHOWN_ERRORS = 4
_PLACES = ("path", "benchmarks", "lexicon", "classifier", "model", "fasttext", "robots", "hosts")  # of a collection


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `2e6` is a number; `off`, `no` and dates stay the text they are. Duplicate keys are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key if isinstance(key, str) else repr(key))
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[1] not in ("bool", "timestamp", "float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.[\d_]*|\.\d+|\d[\d_]*(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|nan)$"),
    list("-+.0123456789"),
)


def presets() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def description(preset: str) -> str:
    """What a preset is, by its own words; the folders it names need not be there."""
    file = PRESETS / f"{preset}.yaml"
    return str(read_yaml(file.read_text(encoding="utf-8"), str(file))["description"])


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe given by path, or by the name of a preset.

    Raises RecipeError with the nearest preset when there is none.
    """
    path = Path(name)
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    if path.is_file():
        return path
    known = presets()
    plain = str(name).removesuffix(".yaml")
    if plain in known:
        return PRESETS / f"{plain}.yaml"
    near = _nearest(plain, known)
    raise RecipeError(f"No recipe file {name}, and no preset of that name{near}. Presets: {', '.join(known)}.")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe (path, run directory or preset name), apply `key.path=value` overrides, and check it.

    Override values are YAML; list items are named by index or by their name (`data.sources.0.weight=2`,
    `data.sources.world.weight=2`). Relative paths in the file are taken from its folder, those in overrides
    from the working directory; ${NAME} in a path is an environment variable.
    Raises RecipeError naming the field, the value found and what is allowed.
    """
    file = find_recipe(path)
    try:
        raw = read_yaml(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise RecipeError(f"Recipe {file} could not be read: {error.strerror}. Check its permissions.") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"Recipe {file} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"Recipe {file} must be a mapping with the keys {', '.join(Recipe.model_fields)}.")
    for override in overrides:
        _override(raw, override)
    _resolve_paths(raw, file.resolve().parent)
    return check_recipe(raw, file.name)


def override(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with `key.path=value` overrides. Raises RecipeError as `load_recipe` does."""
    raw = recipe.model_dump(mode="json")
    for each in overrides:
        _override(raw, each)
    return check_recipe(raw, recipe.name)


def read_collection(kind: type[S], place: Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> S:
    """A recipe of a collection: plain data, or a YAML file, with overrides, paths and variables as in `load_recipe`.

    Paths of sources and steps may be URLs, which stay as they are. Raises RecipeError as `load_recipe` does.
    """
    raw, folder, where = dict(place) if isinstance(place, Mapping) else {}, Path.cwd(), "the recipe"
    if isinstance(place, Path):
        try:
            found = read_yaml(place.read_text(encoding="utf-8"), str(place))
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"Recipe {place} could not be read ({error}). Check it.") from error
        if not isinstance(found, dict) or "sources" not in found:
            raise RecipeError(f"{place} is no recipe of a collection: it has no key `sources`. See docs/curate.md.")
        raw, folder, where = found, place.resolve().parent, place.name
    for override in overrides:
        _override(raw, override)
    for part in ("sources", "steps", "passes"):
        for i, item in enumerate(raw.get(part) or ()):
            for key in _PLACES if isinstance(item, dict) else ():
                if isinstance(item.get(key), str):
                    item[key] = _expand_url(item[key], folder, f"{part}.{i}.{key}")
                elif isinstance(item.get(key), list):
                    item[key] = [_expand_url(str(one), folder, f"{part}.{i}.{key}") for one in item[key]]
    return check_section(kind, raw, where)


def _expand_url(text: str, folder: Path, field: str) -> str:
    return text if "://" in text or not text else _expand(text, folder, field)


def check_recipe(raw: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A Recipe from plain data. Raises RecipeError as `load_recipe` does."""
    return check_section(Recipe, raw, where)


def check_settings(kind: type[S], overrides: Sequence[str]) -> S:
    """Settings of a kind, all defaults but for `key=value` overrides. Raises RecipeError as `load_recipe` does."""
    raw: dict[str, Any] = {}
    for override in overrides:
        _override(raw, override)
    return check_section(kind, raw, "the settings")


def read_settings(kind: type[S], text: str, where: str) -> S:
    """Settings of a kind from YAML. Raises RecipeError as `load_recipe` does."""
    raw = read_yaml(text, where)
    if not isinstance(raw, dict):
        raise RecipeError(f"{where} must be a mapping with the keys {', '.join(kind.model_fields)}.")
    return check_section(kind, raw, where)


def check_section(kind: type[S], raw: Mapping[str, Any], where: str) -> S:
    """Settings of a kind from plain data. Raises RecipeError as `load_recipe` does."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # A misspelt key first: it is why another one is missing.
        found = sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
        lines = [_explain(kind, item) for item in found[:_SHOWN_ERRORS]]
        more = f" And {len(found) - _SHOWN_ERRORS} more." if len(found) > _SHOWN_ERRORS else ""
        raise RecipeError(f"In {where}: {' '.join(lines)}{more}") from error


def recipe_yaml(recipe: Recipe) -> str:
    """The resolved recipe, every default included; `load_recipe` reads it back to an equal one.

    What training fills in from the tokenizer is left out, since its default would mislead.
    """
    plain = recipe.model_dump(mode="json")
    for name in ("vocab_size", "image_token"):
        if plain["model"][name] == ModelConfig.model_fields[name].default:
            del plain["model"][name]
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either reading of YAML would not take for text."""


def _dump_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    ours = _Loader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    style = '"' if ours != "tag:yaml.org,2002:str" else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _dump_text)


def read_yaml(text: str, where: str) -> Any:
    """YAML as recipes are read. Raises RecipeError where it is none."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (_Loader is a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(f"{where} is not valid YAML{place}: {problem}.") from error


def _resolve_paths(raw: dict[str, Any], folder: Path) -> None:
    data = raw.get("data")
    sources = data.get("sources") if isinstance(data, dict) else None
    for i, source in enumerate(sources if isinstance(sources, list) else ()):
        if isinstance(source, dict) and isinstance(source.get("path"), str):
            source["path"] = _expand(source["path"], folder, f"data.sources.{i}.path")


def _expand(text: str, folder: Path, field: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise RecipeError(
                f"{field} is {text!r}, but the environment variable {name} is not set. Set it to the folder that "
                f"holds the data (export {name}=/path/to/data), or give the path with --set {field}=/path."
            )
        return os.environ[name]

    # The result may be a glob, so it is made absolute but not required to exist.
    return str(folder / expand_home(re.sub(r"\$\{(\w+)\}", value, text)))


def _override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise RecipeError(f"Override {override!r} must have the form key.path=value, such as train.tokens=2e6.")
    value = read_yaml(text, f"Override {override!r}")
    if parts[-1] == "path" and isinstance(value, str):
        value = _expand_url(value, Path.cwd(), key)
    target: Any = raw
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        place = ".".join(parts[:depth]) or "the recipe"
        if isinstance(target, list):
            index = _index(target, part, place)
            if last:
                target[index] = value
            else:
                target = target[index]
        elif isinstance(target, dict):
            if last:
                target[part] = value
            else:
                if target.get(part) is None:
                    target[part] = {}
                target = target[part]
        else:
            raise RecipeError(f"Override {override!r}: {place} is {target!r}, which has no parts to set.")


def _index(items: list[Any], part: str, place: str) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    names = [str(item.get("name", item.get("kind"))) if isinstance(item, dict) else "" for item in items]
    if part in names:
        return names.index(part)
    raise RecipeError(f"{place} has no item {part!r}; allowed are 0 to {len(items) - 1}, or {', '.join(names)}.")


def _explain(root: type[BaseModel], item: Any) -> str:
    """One sentence on one pydantic error: field, value found, what is allowed."""
    sections, shown = {root}, []
    for part in item["loc"]:
        tag = _tag(sections)
        tagged = {s for s in sections if part in get_args(s.model_fields[tag].annotation)} if tag else {}
        if tagged and len(sections) > 1:
            sections = set(tagged)
            continue
        shown.append(str(part))
        known = sorted({name for section in sections for name in section.model_fields})
        if isinstance(part, str) and sections:
            if item["type"] == "extra_forbidden" and part == item["loc"][-1]:
                near = _nearest(part, known)
                return f"unknown key {'.'.join(shown)}{near}. Allowed here: {', '.join(known)}."
            if part in known:  # else it is a key of a mapping of sections
                fields = [s.model_fields[part] for s in sections if part in s.model_fields]
                sections = {inner for field in fields for inner in _models(field.annotation)}
    field = ".".join(shown) or "the recipe"
    if item["type"] == "missing":
        return f"{field} is missing; it must be given."
    if item["type"] == "value_error":
        told = f"{str(item['msg']).removeprefix('Value error, ').rstrip('.')}."
        return f"{field}: {told}" if shown else told
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tag = _tag(sections)
        found = item["input"].get(tag) if isinstance(item["input"], dict) else item["input"]
        kinds = sorted(k for s in sections for k in get_args(s.model_fields[tag].annotation))
        return f"{field}.{tag} is {found!r}{_nearest(str(found), kinds)}; allowed are {', '.join(kinds)}."
    choices = re.findall(r"'([^']*)'", item["ctx"]["expected"]) if item["type"] == "literal_error" else []
    near = _nearest(str(item["input"]), choices)
    return f"{field} is {_brief(item['input'])}{near}; allowed: {_allowed(item)}."


_ALLOWED = {
    "greater_than_equal": "{ge} or more",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_type": "text",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_short": "text of {min_length} characters or more",
    "string_too_long": "text of at most {max_length} characters",
    "literal_error": "{expected}",
    "tuple_type": "a list",
    "list_type": "a list",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of at most {max_length}",
    "path_type": "a path",
    "dict_type": "a mapping of keys to values",
    "model_": "a mapping of keys to values",
}
"""What a setting may be, by the kind of the error, or what several kinds begin with."""


def _allowed(item: Any) -> str:
    if item.get("ctx", {}).get("pattern") == NAME:
        return "letters, digits, '.', '_' and '-', a letter or digit first"
    found = next((told for kind, told in _ALLOWED.items() if item["type"].startswith(kind)), None)
    if found is None:
        return str(item["msg"]).removeprefix("Input should be ").rstrip(".")
    limits = item.get("ctx", {}).items()
    return found.format(**{k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in limits})


def _tag(sections: set[type[BaseModel]]) -> str:
    """The field that tells sections of a union apart; empty for others."""
    return next((tag for tag in ("kind", "step") if sections and all(tag in s.model_fields for s in sections)), "")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from _models(inner)


def _nearest(found: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
