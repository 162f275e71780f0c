# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A first look at cross-class features
#
# This notebook trains a small network adversarially, attacks it, and looks at which features its classes
# share. It takes about a minute on a laptop and downloads nothing: the images are drawn by the program
# itself.
#
# It is kept as text. After `pip install jupytext`, `jupytext --to notebook first_look.py` makes a notebook
# of it; JupyterLab opens it directly (right click, *Open With*, *Notebook*). It is a plain Python script
# too.

# %%
import tempfile
from pathlib import Path

import crossclass as cc

# %% [markdown]
# ## Images with features that are known
#
# `Shapes` draws images of coloured parts. Every class has a part of its own, and some pairs of classes
# share a part. So we know which *cross-class features* exist, and can see whether the network uses them.

# %%
images = cc.Shapes(classes=6, n_train=240, n_val=60, n_test=120)
data = images()
print(data)
print(data.sharing.tolist())  # 1: these two classes share a part

# %% [markdown]
# ## Train a small network
#
# `named("shapes-demo")` is a run with all of its settings: data, network, recipe, attack, learning rate.
# `override` changes some. The recipe is adversarial training (AT): in every step PGD looks for the worst
# image within 4/255 of each image, and the network learns to classify that one.

# %%
run = cc.override(
    cc.named("shapes-demo").replace(data=images),
    {
        "epochs": 12,
        "lr_milestones": (6, 10),
        "model.width": 8,
        "recipe.attack.threat.eps": 4 / 255,
        "recipe.attack.steps": 3,
        "validation.every": 1,
        "validation.attack.threat.eps": 4 / 255,
    },
)
print(run.recipe)

# %%
place = Path(tempfile.mkdtemp())
folder = cc.train(run, out=place / "runs")
record = cc.load_run(folder.path)
print(record)

# %% [markdown]
# ## Attack it
#
# An attack is a function of the network, images in [0, 1] and their labels. The network comes back as it
# was.

# %%
model, card = cc.load_model(folder.checkpoint("best.val"))
x, y = data.test.images[:60].float() / 255, data.test.labels[:60]
attack = cc.PGD(threat=cc.Linf(eps=4 / 255), steps=10)
x_adv = attack(model, x, y)
print("largest change of a pixel, times 255:", round(255 * float((x_adv - x).abs().max()), 3))
for what, shown in (("clean", x), ("robust", x_adv)):
    right = model(shown).argmax(1) == y
    print(f"{what} accuracy: {float(right.float().mean()):.1%}")

# %% [markdown]
# ## Attributions, C and CAS
#
# The logit of class i is the sum of `g(x) * W[i]`: features times weights. So `A_i(x) = g(x) * W[i]` says
# how much each feature speaks for class i. The mean over the images of class i is one vector for each
# class, and
#
# - `C[i, j]` is the cosine of the vectors of classes i and j: 1 if they use the same features, 0 if none in
#   common;
# - `CAS` is the sum of all positive `C[i, j]` with i and j different: how much is shared in all.
#
# By hand, in three lines:

# %%
g = model.features(x_adv).detach()
means = cc.class_means(g, model.head.weight.detach(), y)
C = cc.correlation(means)
print(C.numpy().round(2))
print("CAS", round(cc.cas(C), 2))

# %% [markdown]
# `measure` does the same on all images, with intervals and warnings. It takes any network that ends in a
# linear layer: `cc.measure(my_net, images, labels)`. In a notebook the result is a table with C as a
# picture.

# %%
result = cc.measure(model, data.test.images, data.test.labels, attack, class_names=data.class_names)
print(result)
print("95 % interval of CAS:", result.intervals.ends("cas"))
print("images that are right under attack:", int(result.per_image.correct_robust.sum()))
for warning in result.warnings:
    print("warning:", warning)
result

# %% [markdown]
# **Read CAS together with accuracy.** A network that gives the same answer to every image has the largest
# CAS of all.

# %%
figure = cc.plot.matrix(result, width="column")  # the width of a column of a paper
cc.plot.save(figure, place / "C.pdf")
figure

# %%
figure = cc.plot.images(result)
figure

# %% [markdown]
# ## Best and last
#
# Long adversarial training overfits: robust accuracy on new images peaks and then falls. The paper's
# observation is that CAS falls too. A run keeps the best checkpoint and the last one. A run as small as
# this one is too short to show the effect; `crossclass demo` shows it in some minutes, and its page draws
# both curves.

# %%
print(record.results)

# %%
figure = cc.plot.curves(record, "test_robust")
figure

# %%
figure = cc.plot.curves(record, "cas")
cc.plot.save(figure, place / "cas.pdf")
figure

# %% [markdown]
# The numbers behind the curves are arrays, for plots of your own: `record["cas"]` has one number for each
# epoch, `record.C` is [epochs, K, K], and `record.to_pandas()` is a data frame.

# %%
print(record["epoch"], record["cas"].round(2))
print(record.C.shape)

# %% [markdown]
# ## What next
#
# - Another recipe: `cc.override(run, {"recipe": cc.Trades()})`; `help(cc.Trades)` says what its settings
#   do.
# - Your own network, data or attack: the guides in the documentation.
# - The page of this run: `cc.write_report([folder.path], folder.path / "report.html")`.
