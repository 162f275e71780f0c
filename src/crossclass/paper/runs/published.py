"""Published recipes as data: each with the choices of its own code, which differ more than their papers say.

Sources are named as owner/repository. None of them was run here at full size.
"""

from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.data import CIFAR10
from crossclass.data.augment import Augment
from crossclass.models import PreActResNet, ResNet, WideResNet
from crossclass.paper.runs.paper import DEIT
from crossclass.training.averaging import SWA
from crossclass.training.labels import Mix
from crossclass.training.recipes import AT, AWP, MART, GradAlign, KnowledgeDistillation, Teacher, Trades
from crossclass.training.run import Run, Validation

_ZERO = Augment(padding="zero")
_PGD10 = PGD(steps=10)
_TRAIN = PGD(steps=10, bn="train")
_PGD50 = PGD(steps=50, restarts=10)
_031 = Linf(eps=0.031)  # TRADES and MART: a little less than 8/255, worth about a point of accuracy

PUBLISHED: dict[str, Run] = {
    # locuslab/robust_overfitting, train_cifar.py: batch norm in train mode while crafting (13 updates a
    # step there, one of them clean), best chosen on the test set by the training attack, PGD-10.
    "rice2020": Run(data=CIFAR10(), recipe=AT(attack=_TRAIN), validation=Validation(attack=_PGD10)),
    # The same with l_2: its logs say a step of 15/255, and a start uniform in direction and radius.
    "rice2020-l2": Run(
        data=CIFAR10(),
        recipe=AT(
            attack=PGD(threat=L2(eps=128 / 255), rel_step=15 / 128, start="uniform_radius", bn="train")
        ),
        validation=Validation(attack=PGD(threat=L2(eps=128 / 255), rel_step=15 / 128)),
    ),
    # P2333/Bag-of-Tricks-for-AT, its README's baseline: eval mode while crafting, 110 epochs.
    "pang2021": Run(
        data=CIFAR10(),
        model=WideResNet(depth=34, widen=10),
        recipe=AT(attack=_PGD10),
        epochs=110,
        lr_milestones=(100, 105),
        validation=Validation(attack=_PGD10),
    ),
    # VITA-Group/Alleviate-Robust-Overfitting: 0.3 CE + 0.1 KD(standard) + 0.6 KD(robust), T = 2, SWA from
    # epoch 56 (their 55, counted from 0), drops after 50 and 150, the last 5,000 training images held out.
    # Its standard teacher is the best on clean images; here the last epoch: `best` is by robust accuracy.
    "chen2021-kdswa": Run(
        data=CIFAR10(n_train=45000, n_val=5000, balanced=False),
        recipe=KnowledgeDistillation(
            inner=AT(attack=_TRAIN),
            teachers=(
                Teacher(
                    changes={"recipe.kind": "standard", "weight_averaging": None}, which="last", weight=1.0
                ),
                Teacher(changes={"weight_averaging": None}, weight=6.0),
            ),
            lam=0.7,
            T=2.0,
        ),
        augment=_ZERO,
        lr_milestones=(50, 150),
        weight_averaging=SWA(start=56),
    ),
    # locuslab/fast_adversarial, CIFAR10/train_fgsm.py: uniform start, 1.25 eps, one cycle in 15 epochs, a
    # network whose shortcuts take the raw input. PGD-50-10 only at the end. It trains in half precision;
    # precision=bf16 recipe.attack.precision=bf16 is the nearest to that.
    "wong2020-fgsmrs": Run(
        data=CIFAR10(),
        model=PreActResNet(shortcut_input="raw"),
        recipe=AT(attack=FGSM(start="uniform", rel_step=1.25, bn="train")),
        augment=_ZERO,
        epochs=15,
        lr=0.2,
        schedule="cyclic",
        lr_milestones=(),
        validation=Validation(n=1000, attack=_PGD10, final=_PGD50),
    ),
    # tml-epfl/understanding-fast-adv-training: FGSM from x itself, kept from collapse by aligned gradients. A
    # cycle with its peak at 2/5; a network of its own, without normalisation. The forward pass of its FGSM is
    # the one at x in the penalty, so batch norm moves three times a step. It drops the last, smaller batch of
    # an epoch and draws its first weights from normal distributions; here neither.
    "andriushchenko2020-gradalign": Run(
        data=CIFAR10(),
        model=PreActResNet(normalise="none", last_norm=False, shortcut_input="raw"),
        recipe=GradAlign(attack=FGSM(bn="train_frozen_stats"), weight=0.2),
        augment=_ZERO,
        epochs=30,
        lr=0.3,
        schedule="cyclic",
        lr_peak=0.4,
        lr_milestones=(),
        validation=Validation(n=1000, attack=_PGD10, final=_PGD50),
    ),
    # yaodongyu/TRADES, train_trades_cifar10.py: eps .031, step .007, eval mode while crafting, 76 epochs. The
    # rate falls in epoch 75 (counted from 1), so the last two have the low one.
    "trades": Run(
        data=CIFAR10(),
        model=WideResNet(depth=34, widen=10, normalise="none"),
        recipe=Trades(attack=PGD(threat=_031, rel_step=0.007 / 0.031, start="gauss", loss="kl"), beta=6.0),
        augment=_ZERO,
        epochs=76,
        lr_milestones=(74,),
        weight_decay=2e-4,
        validation=Validation(attack=PGD(threat=_031, steps=20, rel_step=0.003 / 0.031)),
    ),
    # YisenWang/MART, train_resnet.py: ResNet-18, a small rate and a large weight decay. The rate falls in
    # epochs 75, 90 and 100, counted from 1.
    "mart": Run(
        data=CIFAR10(),
        model=ResNet(depth=18, normalise="none"),
        recipe=MART(attack=PGD(threat=_031, rel_step=0.007 / 0.031, start="gauss"), beta=5.0),
        augment=_ZERO,
        epochs=120,
        lr_milestones=(74, 89, 99),
        lr=0.01,
        weight_decay=3.5e-3,
        validation=Validation(attack=PGD(threat=_031, steps=20, rel_step=0.003 / 0.031)),
    ),
    # csdongxian/AWP, AT_AWP/train_cifar10.py: its attack runs in eval mode for the first batch of an epoch
    # and in train mode for the rest; here it is train mode throughout.
    "awp": Run(data=CIFAR10(), recipe=AWP(inner=AT(attack=_TRAIN), gamma=0.01)),
    # mo666666/When-Adversarial-Training-Meets-Vision-Transformers: ImageNet weights, 40 epochs of batch 64,
    # mixup and cutmix on three batches in ten (the attack sees the mixed labels too), clipping at 1.
    "mo2022-deit": Run(
        data=CIFAR10(),
        model=DEIT,
        recipe=AT(attack=_PGD10),
        augment=_ZERO,
        mix=Mix(mixup=0.8, cutmix=1.0, prob=0.3),
        epochs=40,
        batch=64,
        lr_milestones=(35, 38),
        weight_decay=1e-4,
        grad_clip_norm=1.0,
    ),
}
