#!/usr/bin/env bash
# The paper's other protocols on the synthetic world, whose files have the real data sets' layouts. Sets itself up; run
# again, it skips whatever is done.
#   bash run_protocols.sh           all of them, and one report: saved_models/protocols/report.md
#   bash run_protocols.sh bias      one: vp, bias, pahmdb or gait
# Features are made once and take longest; each protocol is then a minute or two.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup_env.sh

DATA=data/demo
RUNS="${SPLAVU_RUNS:-saved_models}"
AAM="$RUNS/protocols/aam/model_temp.pth"
SECONDS=0
step() { printf '\n[%3d s] %s\n' "$SECONDS" "$*"; "$@"; }
small() { OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" step "$@"; } # more threads would wait for each other
render() { step python -m splavu synthesize --out "$DATA" --seed 0 --size small --sets "$1"; }
encode() { # DATASET [OPTION ...]
  step python feature_extraction/feature_extraction_action.py --encoder demo --data "$DATA" --features "$DATA/features" \
    --dataset "$@"
}

features() { # PROTOCOL: what it reads
  case "$1" in
    aam) render hmdb51 && encode hmdb51 --split train,val,test --static 10 ;;
    vp) render hmdb51,ucf101,vp && encode vp_hmdb --static 10 && encode vp_ucf ;;
    bias) render ntu,tsh && encode ntu && encode tsh ;;
    pahmdb) render hmdb51,vispr,pa_hmdb51 && encode hmdb51 --split train,val,test --static 10 && encode vispr ;;
    gait) render casia_b && encode casia_b ;;
  esac
}

anonymizer() { # as published, with action recognition alone
  small python multitask_train_fa.py --params params/params_demo.py --quiet --set run_id=protocols/aam \
    --set ft_tad_loss_weight=0 --set ft_ad_loss_weight=0 --set num_epochs=100
}

vp() { # heads on raw features and on two anonymizers', and fresh attackers, of which one head is only one
  local run="--params vp/params_demo_vp.py --quiet" ssl name
  small python vp/train_vp_ft.py $run --set anon=False
  small python vp/train_vp_fb.py $run --set anon=False
  for ssl in False True; do
    small python vp/train_vp_fa.py $run --set ssl=$ssl
    small python vp/train_vp_ft.py $run --set ssl=$ssl
    small python vp/train_vp_fb.py $run --set ssl=$ssl
    [[ "$ssl" == True ]] && name=fa_ssl || name=fa_labels
    small python privacy_eval.py --params params/params_demo_fb.py --quiet --set dataset=vp_hmdb --set num_pa=5 \
      --set "run_id=protocols/vp_privacy_$name" --set "saved_fa_model=$RUNS/protocols/vp_$name/model_temp.pth" \
      --set "views=('temporal',)" --set "attackers=('logistic', 'mlp')" --set "seeds=(0,)"
  done
}
bias() { small python bias/evaluate_bias.py --params bias/params_demo_bias.py --quiet --set "saved_fa_model=$AAM"; }
pahmdb() { small python pahmdb/eval_pahmdb.py --params pahmdb/params_demo_pahmdb.py --quiet --set "saved_fa_models=('$AAM',)"; }
gait() { small python gait/evaluate_gait.py --params gait/params_demo_gait.py --quiet --set "saved_fa_model=$AAM"; }

PROTOCOLS=("$@")
((${#PROTOCOLS[@]})) || PROTOCOLS=(vp bias pahmdb gait)
for protocol in "${PROTOCOLS[@]}"; do
  case "$protocol" in
    vp | bias | pahmdb | gait) ;;
    *) echo "run_protocols.sh: '$protocol' is no protocol; known: vp, bias, pahmdb, gait" >&2 && exit 2 ;;
  esac
done
features aam
anonymizer
for protocol in "${PROTOCOLS[@]}"; do
  features "$protocol"
  "$protocol"
done
step python -m splavu report "$RUNS/protocols"
