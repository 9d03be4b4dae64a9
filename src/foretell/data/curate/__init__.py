<<<<<<< HEAD
"""Curation: from sources to a collection of Parquet files, with the story of every document."""
=======
"""What is kept of what is read: steps, the runner that applies them, and the record of what each did."""
>>>>>>> datasources
