"""crossclass shows what an adversarially trained network learns and then forgets."""
