"""What is trained and shown by name. Figures, tables and theorems of the paper come to live here."""
