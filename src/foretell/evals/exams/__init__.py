"""Exams as people sit them: sections, score charts and percentiles, by appendix A of the GPT-4 report."""
