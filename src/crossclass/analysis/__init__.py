"""What is measured on a network: attributions, C, CAS, I-CAS, accuracies, saliency, and their intervals."""
