{{/* A duration such as 250ms, 5s, 0.5s, 1m or 2h, in milliseconds. */}}
{{- define "common.milliseconds" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $unit := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 -}}
{{- round (mulf $number (get $unit (regexFind "[a-z]+$" .) | default 0)) 0 | int64 -}}
{{- end -}}

{{/* An amount of memory such as 256Mi, 1Gi or 500M, in whole mebibytes. */}}
{{- define "common.mebibytes" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- $bytes := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if not (hasKey $bytes $unit) }}{{ fail (printf "resources.limits.memory %s must be such as 256Mi or 1Gi" $text) }}{{ end -}}
{{- divf (mulf (regexFind "^[0-9.]+" $text | float64) (get $bytes $unit)) 1048576 | floor | int64 -}}
{{- end -}}

{{/*
How long Kubernetes waits before it kills: the delay and the grace of the drain, and 15 s for what may follow them: 5 s for
calls that were cut, 5 s for the last traces, 1 s for the last scrape, and some room.
*/}}
{{- define "common.terminationGracePeriodSeconds" -}}
{{- $milliseconds := add (include "common.milliseconds" .delay) (include "common.milliseconds" .grace) -}}
{{- add (ceil (divf $milliseconds 1000)) 15 -}}
{{- end -}}

{{/*
V8 knows its heap alone, and by itself it would let it grow until the kernel kills the process. Its old generation gets 60 %
of the memory limit, and V8 collects garbage harder before it gets there. The rest is for what does not count in it: the
young generation, the buffers of sockets and messages, code and stacks. Without a limit the choice is V8's.
*/}}
{{- define "common.nodeOptions" -}}
{{- $options := list -}}
{{- with dig "limits" "memory" "" .Values.resources -}}
{{- $options = append $options (printf "--max-old-space-size=%d" (div (mul (include "common.mebibytes" .) 60) 100)) -}}
{{- end -}}
{{- with .Values.nodeOptions }}{{ $options = append $options . }}{{ end -}}
{{- join " " $options -}}
{{- end -}}
