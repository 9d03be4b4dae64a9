"""What others published for MMLU in many languages: to stand beside a result, marked, and never as one."""

from __future__ import annotations

SOURCE = "GPT-4 Technical Report (2023), arXiv 2303.08774, figure 5"
GPT_4 = {  # 3-shot accuracy on MMLU translated by machine
    "en": 0.855, "it": 0.841, "af": 0.841, "es": 0.840, "de": 0.837, "fr": 0.836, "id": 0.831, "ru": 0.827, "pl": 0.821,
    "uk": 0.819, "el": 0.814, "lv": 0.809, "zh": 0.801, "ar": 0.800, "tr": 0.800, "ja": 0.799, "sw": 0.785, "cy": 0.775,
    "ko": 0.770, "is": 0.765, "bn": 0.732, "ur": 0.726, "ne": 0.722, "th": 0.718, "pa": 0.714, "mr": 0.667, "te": 0.620,
}  # fmt: skip
BASELINES = (  # on MMLU in English
    ("Random guessing", 0.250),
    ("Chinchilla, English", 0.670),
    ("PaLM, English", 0.693),
    ("GPT-3.5, English", 0.701),
)
MMLU_SUBJECTS = frozenset((
    "abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge", "college_biology",
    "college_chemistry", "college_computer_science", "college_mathematics", "college_medicine", "college_physics",
    "computer_security", "conceptual_physics", "econometrics", "electrical_engineering", "elementary_mathematics",
    "formal_logic", "global_facts", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
    "high_school_european_history", "high_school_geography", "high_school_government_and_politics",
    "high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics", "high_school_physics",
    "high_school_psychology", "high_school_statistics", "high_school_us_history", "high_school_world_history",
    "human_aging", "human_sexuality", "international_law", "jurisprudence", "logical_fallacies", "machine_learning",
    "management", "marketing", "medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition",
    "philosophy", "prehistory", "professional_accounting", "professional_law", "professional_medicine",
    "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy", "virology",
    "world_religions",
))  # fmt: skip
