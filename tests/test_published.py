"""The recipes for images, clips and sounds beside the commands and configurations that authors published."""

import math
from functools import reduce

import pytest

from selfsup.optim import peak_lr
from selfsup.shipped import files
from selfsup.spec import Spec, read

# A line a recipe: optimizer and form of LARS; batch; epochs, or steps; learning rate before, at and after its peak for
# that batch; weight decay, first and last; warm-up, in epochs or steps; "all" where biases and norms decay, too. Then
# knobs of `hyper`, or of the sections named. Where they part, the authors' code comes before their paper.
TABLE = """
aim              adamw       4096  500000s   0      1e-3   0       0.05    0.05    31250s  -    prefix=True norm_pix_loss=True head_width=2048 head_depth=12 crop_min=0.4 backbone.width=1536 backbone.depth=24 backbone.heads=12 optim.clip_norm=1 optim.betas=(0.9,0.95)
amdim            adamw       1008     150   0      2e-4   0       1e-5    1e-5    500s    all  dim=1536 clip=20 penalty=0.05 optim.betas=(0.8,0.999) optim.drops=(0.6,0.9) optim.drop_factor=0.2
barlow           lars.byol   2048    1000   0      1.6    1.6e-3  1.6e-5  1.6e-5  10      -    redundancy=0.0051 dim=8192 layers=3 bias_lr=0.0015 optim.trust=0.001
beit             adamw       2048     800   0      1.5e-3 1e-5    0.05    0.05    10      -    mask_ratio=75.05/196 mask_block=16 optim.clip_norm=3 optim.betas=(0.9,0.999) backbone.drop_path=0.1
byol             lars.byol   4096    1000   0      3.2    0       1.5e-6  1.5e-6  10      -    momentum=0.996 hidden=4096 dim=256 optim.trust=0.001
cae              adamw       2048     800   0      1.5e-3 1e-5    0.05    0.05    20      -    mask_ratio=98/196 alignment=2 regressor_depth=4 decoder_depth=4 scale=0.1 crop_min=0.08 optim.clip_norm=3 optim.betas=(0.9,0.999) backbone.drop_path=0.1
capi             adamw      16384  500000s  0     1e-3   9.549e-5 0.1     0.1     50000s  -    clusters=16384 temperature=0.12 target_temperature=0.06 iterations=3 mask_ratio=0.65 asked=0.05 predictor_depth=12 cluster_rate=0.5 cluster_decay=0.1 embed_scale=0.2 momentum=0.999 momentum_warmup=0.1 crop_min=0.6 backbone.patch_size=14 backbone.drop_path=0.2 optim.betas=(0.9,0.95)
colorization     adamw         40 450000s   0      3.16e-5 0      1e-3    1e-3    0       all  balance=0.5 neighbors=5 sigma=5 optim.betas=(0.9,0.99) optim.drops=(200/450,375/450) optim.drop_factor=0.1**0.5
context_encoder  adamw         64      25   0      2e-3   2e-3   0       0       0       -    region='shape' share=0.25 adversarial=0 bottleneck=4000 width=64 optim.betas=(0.5,0.999)
data2vec         adamw       2048     800   0      2e-3   1e-5    0.05    0.05    10      -    average=6 beta=2 momentum=0.9998 mask_ratio=120.05/196 mask_block=16 optim.clip_norm=3 optim.betas=(0.9,0.999) backbone.drop_path=0.25
clusterfit       sgd         1024     105   0.1    0.4    0       1e-4    1e-4    5       -    clusters=16000 jitter=1.0 optim.drops=(30/105,60/105,90/105,100/105) optim.drop_factor=0.1 train.norm_groups=32
deepcluster      lars.larc   4096     801   0.3    4.8    4.8e-3  1e-6    1e-6    11      -    clusters=3000 heads=3 temperature=0.1 hidden=2048 dim=128 optim.trust=0.001 train.norm_groups=8
denoising        adamw       1024     300   0      6e-4   0       0.05    0.05    40      -    noise='mask' share=0.25 emphasis=1 depth=0
densecl          sgd          256     200   0      0.03   0       1e-4    1e-4    0       all  queue=65536 momentum=0.999 dense=0.5 temperature=0.2 hidden=2048 dim=128 train.norm_groups=8
dino             adamw       1024     800   0      2e-3   1e-5    0.04    0.4     10      -    outputs=65536 norm_last_layer=False teacher_start=0.04 teacher_temperature=0.07 teacher_warmup=30/800 momentum=0.996 freeze=1/800 backbone.drop_path=0.1 optim.betas=(0.9,0.999) optim.clip_each=None
dinov2           adamw       2048 125000s   0    4e-3*2**0.5 1e-6 0.04    0.4     12500s  -    outputs=65536 shared_head=True balance='center' koleo_weight=0.1 koleo_crops=2 blur_inverted=True mask_share=0.5 mask_min=0.1 mask_max=0.5 teacher_start=0.04 teacher_temperature=0.07 teacher_warmup=30/100 momentum=0.992 freeze=1/100 layer_decay=0.9 embed_scale=0.2 backbone.drop_path=0.3 optim.clip_norm=3 optim.betas=(0.9,0.999)
dinov3           adamw       2048 125000s   0    4e-3*2**0.5 1e-6 0.04    0.4     12500s  -    gram_size=None outputs=65536 hidden=2048 bottleneck=256 koleo_weight=0.1 blur_inverted=True mask_share=0.5 mask_min=0.1 mask_max=0.5 teacher_start=0.04 teacher_temperature=0.07 teacher_warmup=30/100 momentum=0.992 momentum_end=1 freeze=1/100 layer_decay=0.9 embed_scale=0.2 backbone.drop_path=0.3 optim.clip_norm=3 optim.betas=(0.9,0.999)
dinov3_25k       adamw       2048 25000s   0    4e-3*2**0.5 1e-6 0.04    0.4     2500s  -    gram_size=None outputs=65536 hidden=2048 bottleneck=256 koleo_weight=0.1 blur_inverted=True mask_share=0.5 mask_min=0.1 mask_max=0.5 teacher_start=0.04 teacher_temperature=0.07 teacher_warmup=30/100 momentum=0.992 momentum_end=1 freeze=1/100 layer_decay=0.9 embed_scale=0.2 backbone.drop_path=0.3 optim.clip_norm=3 optim.betas=(0.9,0.999)
dinov3_50k       adamw       2048 50000s   0    4e-3*2**0.5 1e-6 0.04    0.4     5000s  -    gram_size=None outputs=65536 hidden=2048 bottleneck=256 koleo_weight=0.1 blur_inverted=True mask_share=0.5 mask_min=0.1 mask_max=0.5 teacher_start=0.04 teacher_temperature=0.07 teacher_warmup=30/100 momentum=0.992 momentum_end=1 freeze=1/100 layer_decay=0.9 embed_scale=0.2 backbone.drop_path=0.3 optim.clip_norm=3 optim.betas=(0.9,0.999)
dinov3_gram      adamw       2048  25000s   0      5e-4   5e-4    0.4     0.4      1250s  -    gram_size=2*224 gram_weight=2 renewals=3 renewed_every=10/200 teacher_start=0.07 teacher_temperature=0.07 momentum=0.999 momentum_end=0.999 freeze=0 koleo_weight=0.1 blur_inverted=True layer_decay=0.9 embed_scale=0.2 backbone.drop_path=0.3 optim.clip_norm=3 optim.betas=(0.9,0.999)
droppos          adamw       2048     800   0      1.2e-3 0       0.05    0.05    10      -    mask_ratio=0.75 drop_ratio=0.75 smoothing=1 attentive=True temperature=0.1 decoder_width=512 decoder_depth=2 decoder_heads=16 optim.clip_each=5 optim.betas=(0.9,0.95)
essl             lars.byol   4096     800   0      4.8    4.8e-3  1e-6    1e-6    10      -    equivariance=0.4 temperature=0.2 hidden=2048 dim=128 bottleneck=128 optim.trust=0.001
feature_distillation adamw   1024  600000s   0      1e-3   0       0.05    0.05    5000s   -    angle=0.9 summary=1
flexpredict      adamw       2048     600   2e-4   8e-4   1e-4    0.04    0.4     15      -    noise=0.25 targets=4 target_min=0.15 target_max=0.2 aspect_min=0.75 aspect_max=1.5 context_min=0.85 context_max=1 min_keep=10 predictor_width=384 predictor_depth=6 predictor_heads=12 momentum=0.996 optim.betas=(0.9,0.999)
gmml             adamw        256     800   0      5e-4   1e-6    0.04    0.4     10      -    mask_ratio=0.75 contrast=0.0 optim.betas=(0.9,0.999) optim.clip_each=3
ibot             adamw       1024     800   0      2e-3   1e-6    0.04    0.4     10      -    outputs=8192 norm_last_layer=False teacher_start=0.04 teacher_temperature=0.07 teacher_warmup=30/800 momentum=0.996 freeze=1/800 mask_share=0.5 mask_min=0.1 mask_max=0.5 backbone.drop_path=0.1 optim.clip_each=3 optim.betas=(0.9,0.999)
ijepa            adamw       2048     300   2e-4   1e-3   1e-6    0.04    0.4     40      -    targets=4 target_min=0.15 target_max=0.2 aspect_min=0.75 aspect_max=1.5 context_min=0.85 context_max=1 min_keep=10 predictor_width=384 predictor_depth=12 predictor_heads=16 momentum=0.996 dense=0 optim.betas=(0.9,0.999)
jigsaw           sgd          256     105   0.025  0.1    0       1e-4    1e-4    5       -    permutations=2000 standardize=False gray=0.66 dim=1000 hidden=None puzzle=255 piece=64 optim.drops=(30/105,60/105,90/105,100/105) train.norm_groups=8
lejepa           adamw       1024     100   0      2e-3   1e-6    0.05    0.05    10      -    weight=0.05 slices=1024 frequencies=17 highest=3 hidden=2048 dim=64 layers=3 large_crops=2 local_crops=6 local_size=96 optim.clip_norm=3 optim.layer_decay=0.9 optim.betas=(0.9,0.999)
macrl            adamw       1024     800   0      6e-4   0       0.05    0.05    40      -    mask_ratio=0.75 weak_mask_ratio=0.5 contrast=1.0 queue=65536 momentum=0.999 temperature=0.2 dim=128 decoder_width=512 decoder_depth=8 decoder_heads=16 optim.betas=(0.9,0.95)
mae              adamw       4096    1600   0      2.4e-3 0       0.05    0.05    40      -    mask_ratio=0.75 norm_pix_loss=True decoder_width=512 decoder_depth=8 decoder_heads=16 optim.betas=(0.9,0.95)
mage             adamw       4096    1600   0      2.4e-3 0       0.05    0.05    40      -    mask_min=0.5 mask_mean=0.55 mask_std=0.25 smoothing=0.1 contrast=0 decoder_width=768 decoder_depth=8 decoder_heads=16 crop_min=0.2 optim.clip_norm=3 optim.betas=(0.9,0.95)
mae_hiera        adamw       4096    1600   0      8e-4   0       0.05    0.05    40      -    mask_ratio=0.6 mask_block=2 multi_scale=True norm_pix_loss=True decoder_width=512 decoder_depth=8 decoder_heads=16 crop_min=0.2 backbone.drop_path=0.2 optim.betas=(0.9,0.95)
maskfeat         adamw       2048    1600   8e-6   1.6e-3  8e-6    0.05    0.05    30      -    mask_ratio=0.4 cell=8 crop_min=0.5 optim.clip_norm=0.02 optim.betas=(0.9,0.999)
mixedae          adamw       4096    1600   0      2.4e-3 0       0.05    0.05    40      -    images=4 contrast=0.1 temperature=0.25 norm_pix_loss=True decoder_width=512 decoder_depth=8 decoder_heads=16 optim.betas=(0.9,0.95)
moco             sgd          256     800   0      0.03   0       1e-4    1e-4    0       all  temperature=0.2 queue=65536 momentum=0.999 head='mlp' dim=128 split=8 train.norm_groups=8
moco_v1          sgd          256     200   0      0.03   0       1e-4    1e-4    0       all  temperature=0.07 queue=65536 momentum=0.999 head='linear' dim=128 split=8 train.norm_groups=8 optim.drops=(120/200,160/200) optim.drop_factor=0.1
mocov3           adamw       4096     300   0      2.4e-3 0       0.1     0.1     40      all  temperature=0.2 momentum=0.99 frozen_patches=True hidden=4096 dim=256 backbone.heads=12 optim.betas=(0.9,0.999)
mocov3_resnet50  lars.byol   4096     300   0      4.8    0       1e-6    1e-6    10      -    temperature=1.0 momentum=0.99 crop_min=0.2 hidden=4096 dim=256 optim.trust=0.001
msn              adamw       1024     800   2e-4   1e-3   9.9e-5  0.04    0.366   15      -    prototypes=1024 temperature=0.1 target_temperature=0.1*0.25 me_max=1 iterations=3 momentum=0.996 hidden=2048 dim=256 mask_ratio=0.15 optim.clip_norm=3 optim.betas=(0.9,0.999)
multimae         adamw       2048    1600   1e-6   8e-4   0       0.05    0.05    40      -    visible=98/196 alpha=1 classes=133 class_dim=64 stride=4 decoder_width=256 decoder_depth=2 decoder_heads=8 crop_min=0.2 optim.betas=(0.9,0.95)
nepa             adamw       4096    1600   0      4.8e-3 0       0.05    0.05    40      -    momentum=0.9999 crop_min=0.08 backbone.patch_size=14 backbone.qk_norm=True optim.betas=(0.9,0.95)
nnclr            lars.byol   4096    1000   0      4.8    0       1e-6    1e-6    10      -    temperature=0.1 queue=98304 hidden=2048 predictor=4096 dim=256
obow             sgd          256     200   0      0.03   3e-5    1e-4    1e-4    10      all  words=8192 levels=2 sharpness=15 kappa=8 momentum=0.99 crops=2 local_crops=5
omnivore         adamw       2048     300   2e-6   2e-3   2e-4    0.05    0.05    30      -    smoothing=0.1 color_drop=0.5 color_jitter=0.4 crop_min=0.08 flip=0.5 backbone.drop_path=0.3 optim.betas=(0.9,0.999)
pirl             sgd         1024     800   0      0.12   1.2e-4  1e-4    1e-4    0       -    loss='nce' temperature=0.07 negatives=32000 invariance=0.5 momentum=0.5 dim=128 puzzle=255 train.norm_groups=32
pixpro           lars.byol   1024     100   0.04   4.0    1e-6    1e-5    1e-5    5       -    reach=0.7 sharpness=2 layers=1 momentum=0.99 hidden=4096 dim=256 optim.trust=0.001
relative_position sgd         512      70   0.02   0.2    0       1e-4    1e-4    5       all  puzzle=255 piece=64 jitter=21 colors=True gray=0.66 layers=1 hidden=4096 crop_min=(255/292)**2 optim.drops=(30/70,50/70) train.norm_groups=8
ropim            adamw       2048     800   2e-6   6e-4   2e-5    0.05    0.05    10      -    ratio=0.14 optim.clip_norm=5 optim.betas=(0.9,0.95) backbone.drop_path=0.1
rotation         sgd          128      70   0.02   0.2    0       1e-4    1e-4    5       all  crop_min=0.08 optim.drops=(30/70,50/70) optim.drop_factor=0.1 train.norm_groups=8
salt             adamw       2048     300   2e-4   1e-3   1e-6    0.04    0.4     40      -    targets=4 target_min=0.15 target_max=0.2 aspect_min=0.75 aspect_max=1.5 context_min=0.85 context_max=1 predictor_width=384 predictor_depth=12 predictor_heads=12 optim.betas=(0.9,0.999)
sela             sgd          256     402   0      0.08   0       1e-5    1e-5    0       all  clusters=3000 heads=10 sharpness=25 relabels=100 optim.drop_factor=0.1 train.norm_groups=4
selfie           sgd          512 120000s   0      0.2    0       1e-4    1e-4    5000s   -    image=224 piece=32 mask_ratio=0.25 pool_width=1024 pool_depth=3 pool_heads=32
semaim           adamw       2048     800   0      1.6e-3 0       0.05    0.05    30      -    order='semantic' target='pixels' norm_pix_loss=True blur=1 decoder_depth=12 crop_min=0.2 optim.clip_norm=3 optim.betas=(0.9,0.95)
simclr           lars.simclr 4096    1000   0      4.8    0       1e-6    1e-6    10      -    temperature=0.1 dim=128 loss_scale=2 strength=1.0 optim.trust=0.001
simdino          adamw        512     100   0      1e-3   1e-6    0.04    0.4     10      -    distortion=0.05 expansion=1 dim=256 hidden=2048 momentum=0.996 crop_min=0.4 local_crops=10 local_max=0.4 backbone.drop_path=0.1 optim.clip_each=3 optim.betas=(0.9,0.999)
simdinov2        adamw        512 250000s   0    4e-3*0.5**0.5 1e-6 0.04    0.4     25000s  -    distortion=0.05 expansion=1 dim=256 hidden=2048 momentum=0.9 patch_weight=1 layer_decay=0.9 embed_scale=0.2 mask_share=0.5 mask_min=0.1 mask_max=0.5 crop_min=0.4 local_crops=10 local_max=0.4 backbone.drop_path=0.3 optim.clip_norm=3 optim.betas=(0.9,0.999)
simmim           adamw       2048     800   2e-6   4e-4   0       0.05    0.05    10      -    mask_ratio=0.6 mask_side=2 optim.drops=(0.875,) optim.drop_factor=0.1 optim.clip_norm=5 optim.betas=(0.9,0.999) backbone.drop_path=0.1
simsiam          sgd          512     100   0      0.1    0       1e-4    1e-4    0       all  layers=3 dim=2048 bottleneck=512 constant=True
split_brain      adamw         40 450000s   0      3.16e-5 0      1e-3    1e-3    0       all  detail=4 optim.betas=(0.9,0.99) optim.drops=(200/450,375/450) optim.drop_factor=0.1**0.5
supervised       sgd         1024      90   0.1    0.4    0       1e-4    1e-4    5       -    smoothing=0.0 optim.drops=(30/90,60/90,80/90) optim.drop_factor=0.1 train.norm_groups=32
supervised_maws  adamw       4096      10   0      1.6e-3 0       0.05    0.05    1       -    smoothing=0.0
swav             lars.larc   4096     800   0.3    4.8    4.8e-3  1e-6    1e-6    10      -    prototypes=3000 temperature=0.1 epsilon=0.05 iterations=3 hidden=2048 dim=128 queue=0 freeze=1/800 optim.trust=0.001 train.norm_groups=8
swav_batch256    lars.larc    256     200   0      0.6    6e-4    1e-6    1e-6    0       -    prototypes=3000 temperature=0.1 epsilon=0.05 iterations=3 hidden=2048 dim=128 queue=3840 queue_begins=15/200 freeze=1/200 optim.trust=0.001 train.norm_groups=1
tico             lars.byol   4096    1000   0      3.2    0       1.5e-6  1.5e-6  10      -    decay=0.9 contrast=8 momentum=0.996 hidden=4096 dim=256
vicreg           lars.byol   2048    1000   0      1.6    1.6e-3  1e-6    1e-6    10      -    invariance=25 variance=25 covariance=1 dim=8192 layers=3 optim.trust=0.001
visreg           adamw        128     400   9e-7   9e-4   9e-7    0.05    0.05    5       -    weight=0.9 scale=1 shape=1 center=1 slices=4096 hidden=2048 dim=256 layers=3 large_crops=4 local_crops=6 local_size=96 solarize=0.1 backbone.drop_path=0.1 optim.clip_norm=1 optim.betas=(0.9,0.999)
vqvae            adamw        256  500000s   0    1e-4   5e-5    1e-4    1e-4  10000s    -    num_codes=8192 code_dim=32 commitment=0.25 code_decay=0.99 optim.betas=(0.9,0.99)
vqvae_gumbel     adamw        512 3000000s  0    1e-4   1.25e-6 1e-4    1e-4    0       -    quantizer='gumbel' num_codes=8192 code_dim=128 temperature=1 temperature_end=1/16 temperature_fall=150/3000 kl_weight=6.6 kl_rise=5/3000 optim.betas=(0.9,0.999)
"""  # noqa: E501

# Likewise, of clips and sounds. SlowFast's configurations count the videos of a node of 8 GPUs, and its code multiplies
# by the nodes all rates that they name: 16 of MAE-ST, whose loader makes four clips of a video, and of MaskFeat, and 8
# of the contrasts. These, and CVRL, have the optimizer of MoCo v3's ViTs (CONFIG.md) in place of one for ResNets.
CLIPS = """
k400/byol            adamw    8*64  200  0      1.5e-4*8*64/256     0       0.1   0.1     35     all  momentum=0.996 hidden=4096 dim=256 crop_min=0.2 input.video.frames=8 input.video.rate=30/8
k400/cubic_puzzles   adamw    512   100  0      1.5e-4*512/256      0       0.05  0.05    10     -    puzzles='both' colors=False input.video.frames=4*32 input.video.rate=30
k400/ijepa_vjepa     adamw    128*24 90000s 2e-4 6.25e-4            7.5e-5  0.04  0.3656  12000s -    mask='tubes' targets=8 target_min=0.15 target_max=0.15 long_targets=2 long_share=0.7 aspect_min=0.75 aspect_max=1.5 beta=0 predictor_width=384 predictor_depth=12 predictor_heads=16 momentum=0.998 dense=0 crop_min=0.3 optim.clip_norm=10 optim.betas=(0.9,0.999) input.video.frames=16 input.video.rate=30/4 input.video.tubelet=2 evals.attentive_vjepa.weight_decays=(0.01,)
k400/mae_st          adamw    16*32*4 4*200 16e-6 16e-4             16e-6   0.05  0.05    4*30   -    mask='random' mask_ratio=0.9 norm_pix_loss=True crop_min=0.5 decoder_depth=4 decoder_width=512 decoder_heads=16 optim.clip_norm=0.02 optim.betas=(0.9,0.95) backbone.name='vit_large_patch16_224' input.video.frames=16 input.video.rate=30/4 input.video.tubelet=2
k400/mae_videomae    adamw    64*32 800  0      1.5e-4*64*32/256    1e-5*64*32/256 0.05 0.05 40  -    mask='tube' mask_ratio=0.9 norm_pix_loss=True norm_channels=True decoder_depth=4 decoder_width=384 decoder_heads=6 optim.betas=(0.9,0.95) optim.clip_norm=None input.video.flip=False input.video.frames=16 input.video.rate=30/4 input.video.tubelet=2
k400/maskfeat        adamw    16*32 800  16e-6  16e-4               16e-6   0.05  0.05    10     -    mask='cube' mask_ratio=0.4 cell=8 crop_min=0.5 optim.clip_norm=0.02 optim.betas=(0.9,0.999) input.video.frames=16 input.video.rate=30/4 input.video.tubelet=2
k400/moco            adamw    8*64  200  0      1.5e-4*8*64/256     0       0.1   0.1     35     all  temperature=0.1 queue=65536 momentum=0.994 dim=128 crop_min=0.2 blur=0.5 input.video.frames=8 input.video.rate=30/8
k400/random_walk     adamw    20    25*5 0      1e-4                0       0     0       0      -    temperature=0.05 dropout=0.1 dim=128 optim.betas=(0.9,0.999) optim.drops=(20/25,) optim.drop_factor=0.3 input.video.frames=4 input.video.rate=8 backbone.image_size=256
k400/simclr          adamw    8*64  200  0      1.5e-4*8*64/256     0       0.1   0.1     35     all  temperature=0.1 hidden=2048 dim=128 strength=0.6/0.8 crop_min=0.2 blur=0.5 input.video.frames=8 input.video.rate=30/8
k400/simclr_cvrl     adamw    1024  800  0      1.5e-4*1024/256     0       0.1   0.1     5      all  temperature=0.1 hidden=2048 dim=128 strength=1 crop_min=0.3 input.video.frames=16 input.video.rate=30/2
audioset/mae         adamw    64*8  33   0      2e-4*64*8/256       0       1e-4  1e-4    3      -    mask='random' mask_ratio=0.8 norm_pix_loss=True decoder_window=4 decoder_depth=16 decoder_width=512 decoder_heads=16 optim.betas=(0.9,0.95) input.audio.frames=1024 input.audio.bins=128 input.audio.roll=True
"""  # noqa: E501
ROWS = {f"in1k/{row}".split()[0]: row.split()[1:] for row in TABLE.strip().splitlines()}
ROWS |= {row.split()[0]: row.split()[1:] for row in CLIPS.strip().splitlines()}


def value(text: str) -> object:
    return eval(text, {}, {})  # products and quotients, as the papers have them


def length(text: str) -> dict[str, float]:
    return {"steps": int(text[:-1])} if text.endswith("s") else {"epochs": value(text)}


def settings(spec: Spec) -> list[object]:
    optim, train = spec.optim, spec.train
    name = f"lars.{optim.lars_form}" if optim.name == "lars" else optim.name
    peak, last = (
        peak_lr(optim, train.batch),
        optim.weight_decay if optim.weight_decay_end is None else optim.weight_decay_end,
    )
    rates = [optim.warmup_lr, peak, optim.min_lr, optim.weight_decay, last]
    warmup = optim.warmup.model_dump(exclude_none=True) if optim.warmup else length("0")
    return [name, train.batch, train.duration.model_dump(exclude_none=True), *rates, warmup, optim.decay_all]


@pytest.mark.parametrize("recipe", ROWS)
def test_a_recipe_is_the_published_one(recipe: str) -> None:
    spec = read(recipe)
    name, batch, duration, *rates, warmup, decays = ROWS[recipe][:10]
    numbers = [pytest.approx(value(rate), rel=1e-9) for rate in rates]
    assert settings(spec) == [name, value(batch), length(duration), *numbers, length(warmup), decays == "all"]
    for pair in ROWS[recipe][10:]:
        path, _, text = pair.partition("=")
        found = reduce(getattr, (path if "." in path else f"hyper.{path}").split("."), spec)
        expected = value(text)
        numeric = isinstance(expected, (float, tuple))
        assert found == (pytest.approx(expected, rel=1e-4) if numeric else expected), pair


def test_no_recipe_is_left_out() -> None:
    folders = ("in1k/", "k400/", "audioset/")
    assert set(ROWS) == {name for name in files() if name.startswith(folders) and not name.endswith("/common")}


def test_msns_schedules_are_cut_off_after_four_fifths() -> None:
    """Cosines over 1.25 times the training: to 1e-6 after the warm-up of 15 epochs, and of the decay from 0 on."""
    after = (1 + math.cos(math.pi * (800 - 15) / (1000 - 15))) / 2
    optim = read("in1k/msn").optim
    assert optim.min_lr == pytest.approx(1e-6 + (1e-3 - 1e-6) * after, rel=0.005)
    assert optim.weight_decay_end == pytest.approx(0.4 + (0.04 - 0.4) * (1 + math.cos(math.pi * 0.8)) / 2, rel=0.002)


def test_v_jepas_schedules_are_cut_off_after_four_fifths() -> None:
    """Cosines over 1.25 times the training: to 1e-6 after the warm-up of 40 epochs, and of the decay from 0 on."""
    after = (1 + math.cos(math.pi * (300 - 40) / (375 - 40))) / 2
    optim = read("k400/ijepa_vjepa").optim
    assert optim.min_lr == pytest.approx(1e-6 + (6.25e-4 - 1e-6) * after, rel=0.001)
    assert optim.weight_decay_end == pytest.approx(0.4 + (0.04 - 0.4) * (1 + math.cos(math.pi * 0.8)) / 2, rel=0.0002)
